#![forbid(unsafe_code)]
//! `#[derive(Object)]`, `#[derive(PropEnum)]`, `#[derive(PropStruct)]`: what can be read off a declaration is written out as
//! calls into `qom`; the logic is there.

mod object;
mod prop_enum;
mod prop_struct;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Makes a struct a level of the object model and registers its type.
///
/// The first field embeds the parent level. On the struct, `#[qom(…)]`:
///
/// * `name = "type-name"`, `parent = ParentStruct` (both needed); `abstract`;
/// * `interfaces(dyn Trait, "name-only")`;
/// * `methods(DeviceClass, …)`: `class.edit::<DeviceClass>().implement::<Self>()` for each;
/// * `class_init = f`, `class_base_init = f`: `fn(&mut qom::Class)`; `class_init` runs after `methods`, states and properties;
/// * `instance_init = f`, `post_init = f`: `fn(&Self) -> qom::Result<()>`.
///
/// On fields:
///
/// * `#[property(…)]` on a `Prop<T>` or `Link<T>`: `name = "…"` (default: the field's, `_` as `-`), `default = …`, `live`,
///   `read_only`, `desc = "…"`, `type = "…"` (QAPI type name if it is not `T`'s); `link` may be written for the reader;
/// * `#[state]`: made and registered by the field type's `qom::State`;
/// * anything else starts as `Default::default()`.
#[proc_macro_derive(Object, attributes(qom, property, state))]
pub fn derive_object(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    object::expand(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes a field-less enum a property type. `#[qom(name = "QapiName")]` on the enum; values are named in kebab case, or by
/// `#[qom(name = "…")]` on the variant.
#[proc_macro_derive(PropEnum, attributes(qom))]
pub fn derive_prop_enum(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    prop_enum::expand(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes a struct a property type whose members are set as `prop.member`. `#[qom(name = "QapiName")]` on the struct; members
/// are property types named in kebab case, or by `#[qom(name = "…")]`; those of type `Option<T>` may be left out.
#[proc_macro_derive(PropStruct, attributes(qom))]
pub fn derive_prop_struct(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    prop_struct::expand(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// `#[qom(name = "…")]` among `attrs`.
fn name_attr(attrs: &[syn::Attribute]) -> syn::Result<Option<String>> {
    let mut name = None;
    for a in attrs.iter().filter(|a| a.path().is_ident("qom")) {
        a.parse_nested_meta(|m| {
            if !m.path.is_ident("name") {
                return Err(m.error("expected `name`"));
            }
            name = Some(m.value()?.parse::<syn::LitStr>()?.value());
            Ok(())
        })?;
    }
    Ok(name)
}

/// `BiosAtaTranslation` as `bios-ata-translation`.
fn kebab(ident: &str) -> String {
    let mut out = String::new();
    for (i, c) in ident.trim_start_matches("r#").chars().enumerate() {
        if c == '_' {
            out.push('-');
        } else if c.is_uppercase() {
            if i > 0 {
                out.push('-');
            }
            out.extend(c.to_lowercase());
        } else {
            out.push(c);
        }
    }
    out
}
