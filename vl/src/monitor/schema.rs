//! Types of QMP's arguments and replies: one description that checks arguments and from which `query-qmp-schema` is made.
//! Source: QAPI's introspection (`SchemaInfo`, docs/devel/qapi-code-gen).

use super::error::QmpError;
use crate::nearest::did_you_mean;
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// A QAPI type as introspection shows it.
#[derive(Clone, Copy, Debug)]
pub enum Ty {
    /// A string.
    Str,
    /// Any integer type.
    Int,
    /// A floating point number.
    Number,
    /// true or false.
    Bool,
    /// Any JSON value.
    Any,
    /// A list.
    List(&'static Ty),
    /// One of some words.
    Enum(&'static [&'static str]),
    /// One of the words of a table elsewhere.
    Words(fn() -> Vec<&'static str>),
    /// An object.
    Object(&'static [Member]),
    /// An object whose other members depend on the value of one.
    Union(&'static Union),
}

/// Members by the value of a tag.
#[derive(Debug)]
pub struct Union {
    /// Members of every variant, the tag among them.
    pub base: &'static [Member],
    /// Name of the tag; its type is an [`Ty::Enum`] or [`Ty::Words`].
    pub tag: &'static str,
    /// Further members by tag value.
    pub variants: &'static [(&'static str, &'static [Member])],
}

/// One member of an object, one argument of a command.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// Its key.
    pub name: &'static str,
    /// Its type.
    pub ty: Ty,
    /// May be left out.
    pub optional: bool,
    /// QAPI features (`deprecated`, `unstable`).
    pub features: &'static [&'static str],
}

/// A member that must be there.
pub const fn req(name: &'static str, ty: Ty) -> Member {
    Member { name, ty, optional: false, features: &[] }
}

/// A member that may be left out.
pub const fn opt(name: &'static str, ty: Ty) -> Member {
    Member { name, ty, optional: true, features: &[] }
}

/// Checks `args` against `members`: nothing missing, nothing unexpected (unless `open`), everything of its type.
///
/// # Errors
/// The first mismatch, in QEMU's words.
pub fn check(members: &[Member], args: &Map<String, Value>, open: bool) -> Result<(), QmpError> {
    check_object(members, args, open, "")
}

/// [`check`] for a tagged union of arguments; `open` concerns tags without a variant.
///
/// # Errors
/// As [`check`].
pub fn check_union(u: &Union, args: &Map<String, Value>, open: bool) -> Result<(), QmpError> {
    check_object(u.base, args, true, "")?;
    let tag = args.get(u.tag).and_then(Value::as_str);
    let more = u.variants.iter().find(|(t, _)| Some(*t) == tag).map(|(_, m)| *m);
    let all: Vec<Member> = u.base.iter().chain(more.unwrap_or_default()).copied().collect();
    check_object(&all, args, open && more.is_none(), "")
}

fn check_object(members: &[Member], args: &Map<String, Value>, open: bool, path: &str) -> Result<(), QmpError> {
    for m in members {
        match args.get(m.name) {
            Some(v) => check_value(&m.ty, v, &format!("{path}{}", m.name))?,
            None if m.optional => {}
            None => return Err(QmpError::generic(format!("Parameter '{path}{}' is missing", m.name))),
        }
    }
    match args.keys().find(|k| !open && !members.iter().any(|m| m.name == **k)) {
        Some(k) => Err(QmpError::generic(format!("Parameter '{path}{k}' is unexpected"))),
        None => Ok(()),
    }
}

fn check_value(ty: &Ty, v: &Value, at: &str) -> Result<(), QmpError> {
    let wrong =
        |expected: &str| Err(QmpError::generic(format!("Invalid parameter type for '{at}', expected: {expected}")));
    match (ty, v) {
        (Ty::Any, _) | (Ty::Str, Value::String(_)) | (Ty::Bool, Value::Bool(_)) | (Ty::Number, Value::Number(_)) => {
            Ok(())
        }
        (Ty::Int, Value::Number(n)) if n.is_i64() || n.is_u64() => Ok(()),
        (Ty::List(item), Value::Array(list)) => {
            list.iter().enumerate().try_for_each(|(i, v)| check_value(item, v, &format!("{at}[{i}]")))
        }
        (Ty::Enum(words), Value::String(s)) if words.contains(&s.as_str()) => Ok(()),
        (Ty::Enum(words), Value::String(s)) => Err(QmpError::generic(format!(
            "Parameter '{at}' does not accept value '{s}' (accepted: {})",
            words.join(", ")
        ))),
        (Ty::Words(words), Value::String(s)) => {
            let words = words();
            if words.contains(&s.as_str()) {
                return Ok(());
            }
            let hint = did_you_mean(s, words.iter().copied());
            Err(QmpError::generic(format!("Parameter '{at}' does not accept value '{s}'{hint}")))
        }
        (Ty::Object(members), Value::Object(o)) => check_object(members, o, false, &format!("{at}.")),
        (Ty::Union(u), Value::Object(o)) => {
            check_object(u.base, o, true, &format!("{at}."))?;
            let tag = o.get(u.tag).and_then(Value::as_str);
            let more = u.variants.iter().find(|(t, _)| Some(*t) == tag).map_or(&[][..], |(_, m)| m);
            let all: Vec<Member> = u.base.iter().chain(more).copied().collect();
            check_object(&all, o, false, &format!("{at}."))
        }
        (Ty::Str | Ty::Enum(_) | Ty::Words(_), _) => wrong("string"),
        (Ty::Int, _) => wrong("integer"),
        (Ty::Number, _) => wrong("number"),
        (Ty::Bool, _) => wrong("boolean"),
        (Ty::List(_), _) => wrong("array"),
        (Ty::Object(_) | Ty::Union(_), _) => wrong("object"),
    }
}

/// What introspection shows of a command or an event.
pub struct Entity {
    /// `command` or `event`.
    pub meta: &'static str,
    /// Name.
    pub name: &'static str,
    /// Arguments or event data.
    pub args: &'static [Member],
    /// A tagged union of arguments instead of `args` alone.
    pub union: Option<&'static Union>,
    /// Reply of a command.
    pub ret: Option<Ty>,
    /// Features.
    pub features: &'static [&'static str],
    /// May be sent with `exec-oob`.
    pub oob: bool,
}

/// Builds the list that `query-qmp-schema` returns.
pub fn introspect(entities: impl IntoIterator<Item = Entity>) -> Value {
    let mut s = Schema::default();
    let mut out = vec![];
    s.names.insert("{}".into(), "0".into());
    s.infos.push(json!({"name": "0", "members": [], "meta-type": "object"}));
    for e in entities {
        let arg = match e.union {
            Some(u) => s.name(&Ty::Union(u)),
            None => s.object(e.args),
        };
        let mut info = json!({"name": e.name, "meta-type": e.meta, "arg-type": arg});
        if let Some(info) = info.as_object_mut() {
            if e.meta == "command" {
                let ret = e.ret.map_or_else(|| "0".into(), |t| s.name(&t));
                info.insert("ret-type".into(), ret.into());
            }
            if e.oob {
                info.insert("allow-oob".into(), true.into());
            }
            if !e.features.is_empty() {
                info.insert("features".into(), json!(e.features));
            }
        }
        out.push(info);
    }
    out.append(&mut s.infos);
    out.into()
}

/// Types met so far: a text that identifies each, its masked name, its description.
#[derive(Default)]
struct Schema {
    names: HashMap<String, String>,
    infos: Vec<Value>,
}

impl Schema {
    fn builtin(&mut self, name: &str, json_type: &str) -> String {
        if self.names.insert(name.into(), name.into()).is_none() {
            self.infos.push(json!({"name": name, "json-type": json_type, "meta-type": "builtin"}));
        }
        name.into()
    }

    fn name(&mut self, ty: &Ty) -> String {
        match ty {
            Ty::Str => self.builtin("str", "string"),
            Ty::Int => self.builtin("int", "int"),
            Ty::Number => self.builtin("number", "number"),
            Ty::Bool => self.builtin("bool", "boolean"),
            Ty::Any => self.builtin("any", "value"),
            Ty::List(item) => {
                let item = self.name(item);
                let name = format!("[{item}]");
                if self.names.insert(name.clone(), name.clone()).is_none() {
                    self.infos.push(json!({"name": name, "element-type": item, "meta-type": "array"}));
                }
                name
            }
            Ty::Enum(words) => self.words(words),
            Ty::Words(words) => self.words(&words()),
            Ty::Object(members) => self.object(members),
            Ty::Union(u) => self.numbered(format!("{u:?}"), |s, name| {
                let members = s.members(u.base);
                let variants: Vec<Value> =
                    u.variants.iter().map(|(case, m)| json!({"case": case, "type": s.object(m)})).collect();
                json!({"name": name, "tag": u.tag, "variants": variants, "members": members, "meta-type": "object"})
            }),
        }
    }

    fn words(&mut self, words: &[&str]) -> String {
        self.numbered(format!("{words:?}"), |_, name| {
            let members: Vec<Value> = words.iter().map(|w| json!({"name": w})).collect();
            json!({"name": name, "members": members, "meta-type": "enum", "values": words})
        })
    }

    fn object(&mut self, members: &'static [Member]) -> String {
        if members.is_empty() {
            return "0".into();
        }
        self.numbered(format!("{members:?}"), |s, name| {
            let members = s.members(members);
            json!({"name": name, "members": members, "meta-type": "object"})
        })
    }

    fn members(&mut self, members: &'static [Member]) -> Vec<Value> {
        let describe = |m: &Member| {
            let mut v = Map::new();
            v.insert("name".into(), m.name.into());
            v.insert("type".into(), self.name(&m.ty).into());
            if m.optional {
                v.insert("default".into(), Value::Null);
            }
            if !m.features.is_empty() {
                v.insert("features".into(), json!(m.features));
            }
            v.into()
        };
        members.iter().map(describe).collect()
    }

    fn numbered(&mut self, key: String, describe: impl FnOnce(&mut Self, &str) -> Value) -> String {
        if let Some(name) = self.names.get(&key) {
            return name.clone();
        }
        let name = self.names.len().to_string();
        self.names.insert(key, name.clone());
        let info = describe(self, &name);
        self.infos.push(info);
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Ty = Ty::Union(&Union {
        base: &[req("type", Ty::Enum(&["number", "qcode"]))],
        tag: "type",
        variants: &[("number", &[req("data", Ty::Int)]), ("qcode", &[req("data", Ty::Str)])],
    });
    const ARGS: &[Member] = &[req("path", Ty::Str), opt("keys", Ty::List(&KEY)), opt("n", Ty::Int)];

    fn error(v: Value) -> String {
        check(ARGS, v.as_object().unwrap(), false).unwrap_err().desc
    }

    #[test]
    fn arguments_are_checked_in_qemus_words() {
        let good = json!({"path": "/", "keys": [{"type": "number", "data": 1}, {"type": "qcode", "data": "a"}]});
        assert!(check(ARGS, good.as_object().unwrap(), false).is_ok());
        assert_eq!(error(json!({})), "Parameter 'path' is missing");
        assert_eq!(error(json!({"path": 1})), "Invalid parameter type for 'path', expected: string");
        assert_eq!(error(json!({"path": "", "x": 1})), "Parameter 'x' is unexpected");
        assert_eq!(error(json!({"path": "", "n": 1.5})), "Invalid parameter type for 'n', expected: integer");
        let at = |k: Value| error(json!({"path": "", "keys": [k]}));
        assert_eq!(
            at(json!({"type": "q"})),
            "Parameter 'keys[0].type' does not accept value 'q' (accepted: number, qcode)"
        );
        assert_eq!(
            at(json!({"type": "qcode", "data": 1})),
            "Invalid parameter type for 'keys[0].data', expected: string"
        );
        assert_eq!(at(json!({"type": "qcode", "data": "", "z": 0})), "Parameter 'keys[0].z' is unexpected");
    }

    #[test]
    fn introspection_names_every_type_it_refers_to() {
        let e = Entity {
            meta: "command",
            name: "c",
            args: ARGS,
            union: None,
            ret: Some(Ty::List(&Ty::Str)),
            features: &[],
            oob: false,
        };
        let schema = introspect([e]);
        let names: Vec<&str> = schema.as_array().unwrap().iter().map(|i| i["name"].as_str().unwrap()).collect();
        let mut uses = vec![];
        for i in schema.as_array().unwrap() {
            for key in ["arg-type", "ret-type", "element-type"] {
                uses.extend(i[key].as_str());
            }
            for list in ["members", "variants"] {
                uses.extend(i[list].as_array().into_iter().flatten().filter_map(|m| m["type"].as_str()));
            }
        }
        assert!(uses.iter().all(|u| names.contains(u)), "{schema}");
        assert!(names.contains(&"[str]"));
        let unique: std::collections::HashSet<_> = names.iter().collect();
        assert_eq!(unique.len(), names.len());
    }
}
