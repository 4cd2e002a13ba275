//! Properties: a record per property, found by name; getters and setters by object.

use crate::error::Reject;
use crate::object::{Base, Kind, Level, ObjRef, Object, with_level};
use crate::proptype::{Input, Prop, PropType, human};
use crate::tree::Entry;
use crate::{Error, Result, nearest};
use serde_json::Value;
use std::borrow::Cow;
use std::sync::{Arc, Weak};

type Getter = Arc<dyn Fn(&dyn Object) -> Result<Value> + Send + Sync>;
type Setter = Arc<dyn Fn(&dyn Object, Input<'_>) -> Result<(), Reject> + Send + Sync>;
type Printer = Arc<dyn Fn(&dyn Object) -> Result<String> + Send + Sync>;
type Resolver = Arc<dyn Fn(&dyn Object) -> Option<ObjRef> + Send + Sync>;

/// A property of a class or of one object.
#[derive(Clone)]
pub struct Property {
    pub(crate) name: Cow<'static, str>,
    ty: Cow<'static, str>,
    desc: Option<Cow<'static, str>>,
    pub(crate) default: Option<Value>,
    values: &'static [&'static str],
    live: bool,
    get: Option<Getter>,
    set: Option<Setter>,
    print: Option<Printer>,
    resolve: Option<Resolver>,
}

impl Property {
    /// A property of type `ty` that can be neither read nor written until [`Self::reader`] and [`Self::writer`], or
    /// [`Self::getter`] and [`Self::setter`], say how.
    pub fn new(name: impl Into<Cow<'static, str>>, ty: impl Into<Cow<'static, str>>) -> Self {
        Self {
            name: name.into(),
            ty: ty.into(),
            desc: None,
            default: None,
            values: &[],
            live: false,
            get: None,
            set: None,
            print: None,
            resolve: None,
        }
    }

    /// A computed property of type `T`, to be completed with [`Self::getter`] and [`Self::setter`].
    pub fn computed<T: PropType>(name: impl Into<Cow<'static, str>>) -> Self {
        Self { values: T::values(), ..Self::new(name, T::TYPE) }
    }

    /// A field `Prop<T>` of `O`.
    pub fn field<O: Level, T: PropType>(name: impl Into<Cow<'static, str>>, f: fn(&O) -> &Prop<T>) -> Self {
        Self {
            values: T::values(),
            get: Some(Arc::new(move |o| Ok(with_level(o, |o: &O| f(o).json())))),
            set: Some(Arc::new(move |o, input| {
                let v = T::take(input)?;
                with_level(o, |o: &O| f(o).set(v));
                Ok(())
            })),
            print: Some(Arc::new(move |o| Ok(with_level(o, |o: &O| f(o).with(PropType::human))))),
            ..Self::new(name, T::TYPE)
        }
    }

    /// Bits of a field: the property is true if all bits of `mask` are set.
    pub fn bit<O: Level, T: BitWord>(name: impl Into<Cow<'static, str>>, mask: T, f: fn(&O) -> &Prop<T>) -> Self {
        Self::computed::<bool>(name).getter(move |o: &O| Ok(f(o).get().has(mask))).setter(move |o: &O, on: bool| {
            f(o).set(f(o).get().with(mask, on));
            Ok(())
        })
    }

    /// How to read it, as JSON, from any object.
    pub fn reader(mut self, f: impl Fn(&dyn Object) -> Result<Value> + Send + Sync + 'static) -> Self {
        self.get = Some(Arc::new(f));
        self
    }

    /// How to write it, to any object.
    pub fn writer(mut self, f: impl Fn(&dyn Object, Input<'_>) -> Result<(), Reject> + Send + Sync + 'static) -> Self {
        self.set = Some(Arc::new(f));
        self
    }

    /// How to read it from an `O`.
    pub fn getter<O: Kind, T: PropType>(mut self, f: impl Fn(&O) -> Result<T> + Clone + Send + Sync + 'static) -> Self {
        let g = f.clone();
        self.print = Some(Arc::new(move |o| with_level(o, &g).map(|v| v.human())));
        self.reader(move |o| with_level(o, &f).map(|v| v.to_json()))
    }

    /// How to write it to an `O`.
    pub fn setter<O: Kind, T: PropType>(self, f: impl Fn(&O, T) -> Result<()> + Send + Sync + 'static) -> Self {
        self.writer(move |o, input| {
            let v = T::take(input)?;
            with_level(o, |o: &O| f(o, v)).map_err(Reject::from)
        })
    }

    /// How a path goes through it, for links.
    pub(crate) fn resolver(mut self, f: impl Fn(&dyn Object) -> Option<ObjRef> + Send + Sync + 'static) -> Self {
        self.resolve = Some(Arc::new(f));
        self
    }

    /// A check made before every set; its error is the set's.
    pub fn check<O: Kind>(mut self, f: impl Fn(&O) -> Result<()> + Send + Sync + 'static) -> Self {
        if let Some(set) = self.set.take() {
            self.set = Some(Arc::new(move |o, input| {
                with_level(o, |o: &O| f(o))?;
                set(o, input)
            }));
        }
        self
    }

    /// May be set after realize.
    pub fn live(mut self) -> Self {
        self.live = true;
        self
    }

    /// Can be read only.
    pub fn read_only(mut self) -> Self {
        self.set = None;
        self
    }

    /// A one-line description.
    pub fn describe(mut self, text: impl Into<Cow<'static, str>>) -> Self {
        self.desc = Some(text.into());
        self
    }

    /// The default that introspection shows.
    pub fn default_value(mut self, v: impl Into<Value>) -> Self {
        self.default = Some(v.into());
        self
    }

    /// Another type name than the Rust type's (`string`, `uint64_t` where QEMU shows that).
    pub fn type_named(mut self, ty: impl Into<Cow<'static, str>>) -> Self {
        self.ty = ty.into();
        self
    }

    /// Name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// QAPI type name: `bool`, `uint32`, `link<T>` ….
    pub fn type_name(&self) -> &str {
        &self.ty
    }

    /// One-line description.
    pub fn description(&self) -> Option<&str> {
        self.desc.as_deref()
    }

    /// Default, where the type declares one.
    pub fn default(&self) -> Option<&Value> {
        self.default.as_ref()
    }

    /// The accepted texts, for enumerations.
    pub fn values(&self) -> &'static [&'static str] {
        self.values
    }

    /// Whether it can be set after realize.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Whether it has a getter.
    pub fn is_readable(&self) -> bool {
        self.get.is_some()
    }

    /// Whether it has a setter.
    pub fn is_writable(&self) -> bool {
        self.set.is_some()
    }
}

/// Unsigned integers as sets of bits.
pub trait BitWord: PropType + Copy {
    /// Whether all bits of `mask` are set.
    fn has(self, mask: Self) -> bool;
    /// The same with the bits of `mask` set or cleared.
    fn with(self, mask: Self, on: bool) -> Self;
}

macro_rules! bit_words {
    ($($t:ty)*) => { $(
        impl BitWord for $t {
            fn has(self, mask: Self) -> bool { self & mask == mask }
            fn with(self, mask: Self, on: bool) -> Self { if on { self | mask } else { self & !mask } }
        }
    )* };
}
bit_words!(u8 u16 u32 u64);

/// A field type that `#[property]` can stand on.
pub trait PropertyField: Sized {
    /// The property whose value is the field.
    fn property<O: Level>(name: &'static str, f: fn(&O) -> &Self) -> Property;
}

impl<T: PropType> PropertyField for Prop<T> {
    fn property<O: Level>(name: &'static str, f: fn(&O) -> &Self) -> Property {
        Property::field(name, f)
    }
}

/// Name, type and more of a property, for inspection.
#[derive(Clone, Debug, PartialEq)]
pub struct PropertyInfo {
    /// Name.
    pub name: String,
    /// QAPI type name; `child<T>` for children.
    pub ty: String,
    /// One-line description.
    pub description: Option<String>,
    /// Default, where the type declares one.
    pub default: Option<Value>,
    /// The accepted texts, for enumerations.
    pub values: &'static [&'static str],
    /// Whether it can be read.
    pub readable: bool,
    /// Whether it can be written.
    pub writable: bool,
    /// Whether it belongs to the class rather than to the one object.
    pub of_class: bool,
}

impl PropertyInfo {
    /// What introspection shows of a class property.
    pub fn of(p: &Property) -> Self {
        Self::new(p, true)
    }

    pub(crate) fn new(p: &Property, of_class: bool) -> Self {
        Self {
            name: p.name().to_owned(),
            ty: p.type_name().to_owned(),
            description: p.desc.as_deref().map(str::to_owned),
            default: p.default.clone(),
            values: p.values,
            readable: p.is_readable(),
            writable: p.is_writable(),
            of_class,
        }
    }
}

pub(crate) enum Found {
    Class(&'static Property),
    Own(Arc<Property>),
    Child(ObjRef),
}

/// The methods of [`Base`] of the same names, without the way back from the root level to the object.
impl dyn Object {
    /// See [`Base::get`].
    pub fn get(&self, name: &str) -> Result<Value> {
        self.base().get_of(self, name)
    }

    /// See [`Base::set`].
    pub fn set(&self, name: &str, v: impl std::borrow::Borrow<Value>) -> Result<()> {
        self.base().set_of(self, name, Input::Json(v.borrow()))
    }

    /// See [`Base::set_str`].
    pub fn set_str(&self, name: &str, text: &str) -> Result<()> {
        self.base().set_of(self, name, Input::Text(text))
    }

    /// See [`Base::set_input`].
    pub fn set_input(&self, name: &str, input: Input<'_>) -> Result<()> {
        self.base().set_of(self, name, input)
    }
}

/// Properties by name.
impl Base {
    pub(crate) fn find_entry(&self, name: &str) -> Option<Found> {
        if let Some(p) = self.class.find_property(name) {
            return Some(Found::Class(p));
        }
        match self.entries.read().get(name) {
            Some(Entry::Prop(p)) => Some(Found::Own(p.clone())),
            Some(Entry::Child(c)) => Some(Found::Child(c.clone())),
            None => None,
        }
    }

    fn find(&self, name: &str) -> Result<Found> {
        self.find_entry(name).ok_or_else(|| self.no_property(name))
    }

    fn no_property(&self, name: &str) -> Error {
        let all = self.properties();
        let near = nearest(name, all.iter().map(|p| p.name.as_str()));
        Error::PropertyNotFound { ty: self.type_name(), name: name.to_owned(), near }
    }

    fn alive(&self) -> Result<ObjRef> {
        self.upgrade().ok_or_else(|| Error::generic(format!("object of type '{}' is going away", self.type_name())))
    }

    /// Whether the object has this property or child.
    pub fn has_property(&self, name: &str) -> bool {
        self.find_entry(name).is_some()
    }

    /// A property's value as QMP shows it; a child's path.
    pub fn get(&self, name: &str) -> Result<Value> {
        self.get_of(&*self.alive()?, name)
    }

    fn get_of(&self, o: &dyn Object, name: &str) -> Result<Value> {
        let read = |p: &Property| match &p.get {
            Some(get) => get(o),
            None => Err(Error::NotReadable { ty: self.type_name(), name: name.to_owned() }),
        };
        if let Some(p) = self.class.find_property(name) {
            return read(p);
        }
        match self.find(name)? {
            Found::Class(p) => read(p),
            Found::Own(p) => read(&p),
            Found::Child(c) => Ok(c.path().into()),
        }
    }

    /// A property's value as `info qtree` shows it.
    pub fn print(&self, name: &str) -> Result<String> {
        let print = |p: &Property| p.print.as_ref().map(|f| f(&*self.alive()?));
        let printed = match self.find(name)? {
            Found::Class(p) => print(p),
            Found::Own(p) => print(&p),
            Found::Child(_) => None,
        };
        printed.unwrap_or_else(|| Ok(human(&self.get(name)?)))
    }

    /// Sets a property from JSON.
    pub fn set(&self, name: &str, v: impl std::borrow::Borrow<Value>) -> Result<()> {
        self.set_input(name, Input::Json(v.borrow()))
    }

    /// Sets a property from QEMU's text syntax; `smp.cpus` sets the structure `smp` with one member given.
    pub fn set_str(&self, name: &str, text: &str) -> Result<()> {
        self.set_input(name, Input::Text(text))
    }

    /// Sets a property.
    ///
    /// # Errors
    /// Not found, read-only, realized, or not a value of the type.
    pub fn set_input(&self, name: &str, input: Input<'_>) -> Result<()> {
        self.set_of(&*self.alive()?, name, input)
    }

    fn set_of(&self, o: &dyn Object, name: &str, input: Input<'_>) -> Result<()> {
        match self.find_entry(name) {
            Some(Found::Class(p)) => self.write(o, p, input),
            Some(Found::Own(p)) => self.write(o, &p, input),
            Some(Found::Child(_)) => Err(Error::NotWritable { ty: self.type_name(), name: name.to_owned() }),
            None => match name.split_once('.').filter(|(head, _)| self.has_property(head)) {
                Some((head, rest)) => self.set_member(head, rest, input),
                None => Err(self.no_property(name)),
            },
        }
    }

    fn set_member(&self, head: &str, rest: &str, input: Input<'_>) -> Result<()> {
        let leaf = match input {
            Input::Json(v) | Input::Keyval(v) => v.clone(),
            Input::Text(s) => s.into(),
        };
        let tree = rest.rsplit('.').fold(leaf, |v, key| Value::Object([(key.to_owned(), v)].into_iter().collect()));
        match input {
            Input::Json(_) => self.set_input(head, Input::Json(&tree)),
            _ => self.set_input(head, Input::Keyval(&tree)),
        }
    }

    fn write(&self, o: &dyn Object, p: &Property, input: Input<'_>) -> Result<()> {
        let (ty, name) = (self.type_name(), p.name());
        let Some(set) = &p.set else { return Err(Error::NotWritable { ty, name: name.into() }) };
        if !p.live && self.is_frozen() {
            return Err(Error::Realized { ty, name: name.into(), who: self.who() });
        }
        set(o, input).map_err(|r| r.into_error(ty, name))
    }

    fn who(&self) -> String {
        match self.name().filter(|n| !n.contains('[')) {
            Some(id) => format!("device '{id}'"),
            None => "anonymous device".to_owned(),
        }
    }

    /// Adds a property to this object alone. `name[*]` takes the first free number. Answers the name it got.
    ///
    /// # Errors
    /// [`Error::DuplicateProperty`].
    pub fn add_property(&self, p: Property) -> Result<Arc<str>> {
        let name = p.name.clone();
        self.add_entry(&name, |name| Entry::Prop(Arc::new(Property { name: Cow::Owned(name.to_owned()), ..p })))
    }

    /// Removes a property of this object alone.
    pub fn del_property(&self, name: &str) -> Result<()> {
        let removed = {
            let mut map = self.entries.write();
            match map.get(name) {
                Some(Entry::Prop(_)) => map.shift_remove(name),
                _ => None,
            }
        };
        removed.map(drop).ok_or_else(|| self.no_property(name))
    }

    /// Adds a property that stands for `target`'s property of the name `of`: type, values, checks and frozen state are
    /// the target's. `target` must live as long as this object (a child, say), or the property fails.
    pub fn add_alias(&self, name: &str, target: &ObjRef, of: &str) -> Result<()> {
        let template = match target.find(of)? {
            Found::Class(p) => p.clone(),
            Found::Own(p) => (*p).clone(),
            Found::Child(c) => Property::new("", format!("link<{}>", c.type_name())).reader(|_| Ok(Value::Null)),
        };
        let target: Weak<dyn Object> = Arc::downgrade(target);
        let of: Arc<str> = of.into();
        let reach = move || target.upgrade().ok_or_else(|| Error::generic("the target of the alias is gone"));
        let mut p = Property { name: name.to_owned().into(), live: true, print: None, ..template };
        if p.get.is_some() {
            let (reach1, of1) = (reach.clone(), of.clone());
            p.get = Some(Arc::new(move |_| reach1()?.get(&of1)));
            let (reach2, of2) = (reach.clone(), of.clone());
            p.print = Some(Arc::new(move |_| reach2()?.print(&of2)));
        }
        if p.set.is_some() {
            let (reach3, of3) = (reach.clone(), of.clone());
            p.set = Some(Arc::new(move |_, input| Ok(reach3()?.set_input(&of3, input)?)));
        }
        p.resolve = Some(Arc::new(move |_| reach().ok()?.resolve_component(&of)));
        self.add_property(p).map(drop)
    }

    /// The object a path reaches through `name`: a child, a link's target, an alias of either.
    pub(crate) fn resolve_component(&self, name: &str) -> Option<ObjRef> {
        let through = |p: &Property| {
            let f = p.resolve.as_ref()?;
            f(&*self.upgrade()?)
        };
        match self.find_entry(name)? {
            Found::Class(p) => through(p),
            Found::Own(p) => through(&p),
            Found::Child(c) => Some(c),
        }
    }

    /// All properties: the class's, then the object's own and its children.
    pub fn properties(&self) -> Vec<PropertyInfo> {
        let class = self.class.properties().map(|p| PropertyInfo::new(p, true));
        let entries = self.entries.read();
        let own = entries.iter().map(|(name, e)| match e {
            Entry::Prop(p) => PropertyInfo::new(p, false),
            Entry::Child(c) => {
                let p = Property::new(name.to_string(), format!("child<{}>", c.type_name()));
                PropertyInfo { readable: true, ..PropertyInfo::new(&p, false) }
            }
        });
        class.chain(own).collect()
    }

    /// What introspection shows of the property `name`.
    pub fn property_info(&self, name: &str) -> Result<PropertyInfo> {
        self.properties().into_iter().find(|p| p.name == name).ok_or_else(|| self.no_property(name))
    }
}
