//! Objects: `Arc<dyn Object>`. A level of the type tree is a struct whose first field embeds its parent level.

use crate::Map;
use crate::class::Class;
use crate::property::Property;
use crate::scope::Scope;
use crate::tree::Entry;
use parking_lot::RwLock;
use std::any::{Any, TypeId};
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

/// A strong reference to an object of any type.
pub type ObjRef = Arc<dyn Object>;

/// An object, seen from one of its levels. Written by `#[derive(Object)]`. Everything that can be done with any object is
/// a method of [`Base`], which `dyn Object` and every level dereference to.
pub trait Object: Any + Send + Sync {
    /// The root level.
    fn base(&self) -> &Base;
    /// The ancestor that is `depth` levels below the root, or this level if there is none so deep.
    fn level(&self, depth: usize) -> &dyn Any;
    /// For `dyn I`: the level that implements it, and the [`Caster<I>`](Caster) that knows how.
    fn face(&self, id: TypeId) -> Option<(&dyn Any, &'static dyn Any)>;
}

/// What an object can be cast to: a level (a struct with `#[derive(Object)]`), or an interface (`dyn Trait` declared with
/// [`interface!`](crate::interface)).
pub trait Kind: Any {
    /// QOM type name.
    const NAME: &'static str;
    /// The object as this kind; `None` if it is not one.
    fn of(o: &dyn Object) -> Option<&Self>;
}

/// A level. Written by `#[derive(Object)]`.
pub trait Level: Object + Kind + Sized {
    /// Levels above it: 0 for [`Base`].
    const DEPTH: usize;

    /// Builds the level and its ancestors, every field at its default.
    fn build(base: Base) -> Self;

    /// A weak typed handle to this object: what callbacks keep.
    fn this(&self) -> Handle<Self> {
        Handle::from_weak(self.base().weak())
    }
}

/// Turns the level that implements interface `I` into `&I`.
#[doc(hidden)]
pub struct Caster<I: ?Sized>(pub fn(&dyn Any) -> Option<&I>);

/// Declares an interface type.
///
/// * `interface!(dyn Trait, "name")`: objects can be cast to `dyn Trait`;
/// * `interface!("name")`: a name only;
/// * both take `, parent = "other"` (default: `interface`).
#[macro_export]
macro_rules! interface {
    ($name:literal) => {
        $crate::interface!($name, parent = "interface");
    };
    ($name:literal, parent = $parent:literal) => {
        $crate::register!(|r| r.add($crate::TypeInfo::interface($name, $parent)));
    };
    ($t:ty, $name:literal) => {
        $crate::interface!($t, $name, parent = "interface");
    };
    ($t:ty, $name:literal, parent = $parent:literal) => {
        impl $crate::Kind for $t {
            const NAME: &'static str = $name;
            fn of(o: &dyn $crate::Object) -> Option<&Self> {
                o.interface::<$t>()
            }
        }
        $crate::interface!($name, parent = $parent);
    };
}

pub(crate) fn construct<T: Level>(base: Base) -> ObjRef {
    Arc::new_cyclic(|w: &Weak<T>| T::build(Base { this: Some(w.clone()), ..base }))
}

/// The parent, and the name it knows the object by.
pub(crate) type Place = (Weak<dyn Object>, Arc<str>);

/// The root level, type `object`: class, place in the tree, own properties.
pub struct Base {
    pub(crate) class: &'static Class,
    pub(crate) scope: Arc<Scope>,
    this: Option<Weak<dyn Object>>,
    frozen: AtomicBool,
    pub(crate) place: RwLock<Option<Place>>,
    pub(crate) entries: RwLock<Map<Arc<str>, Entry>>,
}

impl Base {
    pub(crate) fn new(class: &'static Class, scope: Arc<Scope>) -> Self {
        Self {
            class,
            scope,
            this: None,
            frozen: AtomicBool::new(false),
            place: RwLock::default(),
            entries: RwLock::default(),
        }
    }

    /// The object's class.
    pub fn class(&self) -> &'static Class {
        self.class
    }

    /// QOM type name.
    pub fn type_name(&self) -> &'static str {
        self.class.name()
    }

    /// Whether the object's type is, descends from, or implements the type `name`.
    pub fn is_a(&self, name: &str) -> bool {
        self.class.is_a(name)
    }

    /// The world the object lives in.
    pub fn scope(&self) -> &Arc<Scope> {
        &self.scope
    }

    /// The object; `None` while it is built or dropped.
    pub fn upgrade(&self) -> Option<ObjRef> {
        self.this.as_ref()?.upgrade()
    }

    /// The object.
    ///
    /// # Panics
    /// While it is built (before `instance_init`) or dropped, when nobody can hold it.
    pub fn object(&self) -> ObjRef {
        self.upgrade().expect("neither being built nor dropped")
    }

    pub(crate) fn this(&self) -> Option<&Weak<dyn Object>> {
        self.this.as_ref()
    }

    /// A weak reference to the object.
    pub fn weak(&self) -> Option<Weak<dyn Object>> {
        self.this.clone()
    }

    /// From now on only `live` properties can be set by name: the object is realized.
    pub fn freeze(&self) {
        self.frozen.store(true, Ordering::Release);
    }

    /// Undoes [`Base::freeze`].
    pub fn thaw(&self) {
        self.frozen.store(false, Ordering::Release);
    }

    /// Whether [`Base::freeze`] was called.
    pub fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::Acquire)
    }
}

impl Object for Base {
    fn base(&self) -> &Base {
        self
    }
    fn level(&self, _: usize) -> &dyn Any {
        self
    }
    fn face(&self, _: TypeId) -> Option<(&dyn Any, &'static dyn Any)> {
        None
    }
}

impl Kind for Base {
    const NAME: &'static str = "object";
    fn of(o: &dyn Object) -> Option<&Self> {
        Some(o.base())
    }
}

impl Level for Base {
    const DEPTH: usize = 0;

    fn build(base: Base) -> Self {
        base
    }
}

/// The class property that every object has.
pub(crate) fn object_class_init(c: &mut Class) {
    c.property(Property::new("type", "string").reader(|o| Ok(o.type_name().into())));
}

impl Deref for dyn Object {
    type Target = Base;
    fn deref(&self) -> &Base {
        self.base()
    }
}

impl fmt::Debug for dyn Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.type_name(), self.path())
    }
}

impl dyn Object {
    /// The object as a level `T`: its own type or an ancestor.
    #[inline]
    pub fn cast<T: Level>(&self) -> Option<&T> {
        self.level(T::DEPTH).downcast_ref()
    }

    /// The object as an interface, `dyn I`.
    pub fn interface<I: ?Sized + 'static>(&self) -> Option<&I> {
        let (level, caster) = self.face(TypeId::of::<I>())?;
        (caster.downcast_ref::<Caster<I>>()?.0)(level)
    }

    /// The object's Rust struct, if it is exactly `T`.
    pub fn downcast<T: Object>(self: Arc<Self>) -> Option<Arc<T>> {
        (self as Arc<dyn Any + Send + Sync>).downcast().ok()
    }
}

/// Calls `f` with `o` as an `O`, also where `o` is an ancestor's level of it.
///
/// # Panics
/// If the object is not an `O`: for callbacks that are only reached through `O`'s class.
pub(crate) fn with_level<O: Kind, R>(o: &dyn Object, f: impl FnOnce(&O) -> R) -> R {
    match O::of(o) {
        Some(level) => f(level),
        None => f(of_class(&*o.object())),
    }
}

/// The object as a `T`, for functions that only `T`'s class leads to.
///
/// # Panics
/// If the object is not a `T`.
pub fn of_class<T: Kind + ?Sized>(o: &dyn Object) -> &T {
    match T::of(o) {
        Some(t) => t,
        None => panic!("'{}' is not a '{}'", o.type_name(), T::NAME),
    }
}

/// A weak typed handle.
pub struct Handle<T: ?Sized>(Option<Weak<dyn Object>>, PhantomData<fn() -> Box<T>>);

impl<T: Kind + ?Sized> Handle<T> {
    /// A handle to `o`; `None` if it is not a `T`.
    pub fn new(o: &ObjRef) -> Option<Self> {
        T::of(&**o).map(|_| Self(Some(Arc::downgrade(o)), PhantomData))
    }

    pub(crate) fn from_weak(w: Option<Weak<dyn Object>>) -> Self {
        Self(w, PhantomData)
    }

    /// A strong handle; `None` once the object is gone.
    pub fn upgrade(&self) -> Option<Ref<T>> {
        Ref::new(self.0.as_ref()?.upgrade()?)
    }

    /// Calls `f` with the object; `None` once it is gone.
    pub fn with<R>(&self, f: impl FnOnce(&T) -> R) -> Option<R> {
        let o = self.0.as_ref()?.upgrade()?;
        T::of(&*o).map(f)
    }
}

impl<T: ?Sized> Clone for Handle<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

impl<T: ?Sized> Default for Handle<T> {
    /// A handle to nothing.
    fn default() -> Self {
        Self(None, PhantomData)
    }
}

impl<T: Kind + ?Sized> fmt::Debug for Handle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle<{}>", T::NAME)
    }
}

/// A strong typed handle: dereferences to a level or an interface of the object it keeps alive.
pub struct Ref<T: ?Sized>(ObjRef, PhantomData<fn() -> Box<T>>);

impl<T: Kind + ?Sized> Ref<T> {
    /// `o` as a `T`; `None` if it is not one.
    pub fn new(o: ObjRef) -> Option<Self> {
        T::of(&*o).is_some().then_some(Self(o, PhantomData))
    }

    /// The untyped reference.
    pub fn object(this: &Self) -> &ObjRef {
        &this.0
    }

    /// The untyped reference.
    pub fn into_object(this: Self) -> ObjRef {
        this.0
    }
}

impl<T: Kind + ?Sized> Deref for Ref<T> {
    type Target = T;
    fn deref(&self) -> &T {
        of_class(&*self.0)
    }
}

impl<T: ?Sized> Clone for Ref<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

impl<T: Kind + ?Sized> fmt::Debug for Ref<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T: Kind + ?Sized> PartialEq for Ref<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// What `#[derive(Object)]` asks of a `#[state]` field: `hw-core` implements it for `MachineCell`.
pub trait State: Sized {
    /// The field's value in a new object.
    fn init(base: &Base) -> Self;
    /// Tells the class of `T` about the field.
    fn register<T: Level>(class: &mut Class, name: &'static str, field: fn(&T) -> &Self);
}

/// The plainest type with instances, `container`: a folder of the tree.
#[derive(crate::Object)]
#[qom(name = "container", parent = Base)]
pub struct Container {
    parent: Base,
}
