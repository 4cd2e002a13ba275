//! `#[derive(Object)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{
    Data, DeriveInput, Error, Expr, Field, Fields, Ident, Lit, LitStr, Path, Result, Token, Type, parenthesized,
};

/// `dyn Trait`, or the name of an interface without a trait.
enum Interface {
    Trait(Box<Type>),
    Name(LitStr),
}

impl Parse for Interface {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        if input.peek(LitStr) { input.parse().map(Self::Name) } else { input.parse().map(Self::Trait) }
    }
}

#[derive(Default)]
struct TypeAttr {
    name: Option<LitStr>,
    parent: Option<Path>,
    is_abstract: bool,
    interfaces: Vec<Interface>,
    methods: Vec<Path>,
    class_init: Option<Expr>,
    class_base_init: Option<Expr>,
    instance_init: Option<Expr>,
    post_init: Option<Expr>,
}

impl Parse for TypeAttr {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut a = Self::default();
        while !input.is_empty() {
            let key = input.call(Ident::parse_any)?;
            let list;
            match key.to_string().as_str() {
                "abstract" => a.is_abstract = true,
                "interfaces" => {
                    parenthesized!(list in input);
                    a.interfaces.extend(Punctuated::<Interface, Token![,]>::parse_terminated(&list)?);
                }
                "methods" => {
                    parenthesized!(list in input);
                    a.methods
                        .extend(Punctuated::<Path, Token![,]>::parse_terminated_with(&list, Path::parse_mod_style)?);
                }
                other => {
                    let unknown = format!("unknown key `{other}`");
                    input.parse::<Token![=]>().map_err(|_| Error::new(key.span(), &unknown))?;
                    match other {
                        "name" => a.name = Some(input.parse()?),
                        "parent" => a.parent = Some(input.parse()?),
                        "class_init" => a.class_init = Some(input.parse()?),
                        "class_base_init" => a.class_base_init = Some(input.parse()?),
                        "instance_init" => a.instance_init = Some(input.parse()?),
                        "post_init" => a.post_init = Some(input.parse()?),
                        _ => return Err(Error::new(key.span(), unknown)),
                    }
                }
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(a)
    }
}

#[derive(Default)]
struct PropertyAttr {
    name: Option<LitStr>,
    default: Option<Expr>,
    desc: Option<LitStr>,
    type_name: Option<LitStr>,
    live: bool,
    read_only: bool,
}

impl Parse for PropertyAttr {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut a = Self::default();
        while !input.is_empty() {
            let key = input.call(Ident::parse_any)?;
            match key.to_string().as_str() {
                "live" => a.live = true,
                "read_only" => a.read_only = true,
                "link" => {}
                other => {
                    let unknown = format!("unknown key `{other}`");
                    input.parse::<Token![=]>().map_err(|_| Error::new(key.span(), &unknown))?;
                    match other {
                        "name" => a.name = Some(input.parse()?),
                        "default" => a.default = Some(input.parse()?),
                        "desc" => a.desc = Some(input.parse()?),
                        "type" => a.type_name = Some(input.parse()?),
                        _ => return Err(Error::new(key.span(), unknown)),
                    }
                }
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(a)
    }
}

fn property_attr(f: &Field) -> Result<Option<PropertyAttr>> {
    let Some(a) = f.attrs.iter().find(|a| a.path().is_ident("property")) else { return Ok(None) };
    match a.meta {
        syn::Meta::Path(_) => Ok(Some(PropertyAttr::default())),
        _ => a.parse_args().map(Some),
    }
}

/// String literals become `String`s.
fn default_expr(e: &Expr) -> TokenStream {
    match e {
        Expr::Lit(l) if matches!(l.lit, Lit::Str(_)) => quote!(::std::string::String::from(#e)),
        e => quote!(#e),
    }
}

pub fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let ty = &input.ident;
    let attr = input.attrs.iter().find(|a| a.path().is_ident("qom"));
    let attr: TypeAttr =
        attr.ok_or_else(|| Error::new_spanned(ty, "needs #[qom(name = …, parent = …)]"))?.parse_args()?;
    let name = attr.name.as_ref().ok_or_else(|| Error::new_spanned(ty, "#[qom] needs `name`"))?;
    let parent = attr.parent.as_ref().ok_or_else(|| Error::new_spanned(ty, "#[qom] needs `parent`"))?;
    if let Some(p) = input.generics.params.first() {
        return Err(Error::new_spanned(p, "a QOM type is not generic"));
    }
    let Data::Struct(syn::DataStruct { fields: Fields::Named(fields), .. }) = &input.data else {
        return Err(Error::new_spanned(ty, "a QOM type is a struct with named fields"));
    };
    let Some(first) = fields.named.first() else {
        return Err(Error::new_spanned(ty, "the first field embeds the parent"));
    };
    let up = &first.ident;
    let up_type = &first.ty;

    let (mut inits, mut class_steps) = (Vec::new(), Vec::new());
    for class in &attr.methods {
        class_steps.push(quote! { class.edit::<#class>().implement::<#ty>(); });
    }
    for f in fields.named.iter().skip(1) {
        let (ident, fty) = (f.ident.as_ref().expect("named"), &f.ty);
        let plain = ident.unraw().to_string();
        if f.attrs.iter().any(|a| a.path().is_ident("state")) {
            inits.push(quote! { #ident: <#fty as ::qom::State>::init(&base) });
            class_steps.push(quote! { <#fty as ::qom::State>::register::<#ty>(class, #plain, |o| &o.#ident); });
        } else if let Some(p) = property_attr(f)? {
            let pname = p.name.as_ref().map_or_else(|| plain.replace('_', "-"), LitStr::value);
            let mut calls = TokenStream::new();
            match &p.default {
                Some(e) => {
                    let e = default_expr(e);
                    inits.push(quote! { #ident: <#fty>::new(#e) });
                    calls.extend(quote! { .default_value(<#fty>::new(#e).json()) });
                }
                None => inits.push(quote! { #ident: ::core::default::Default::default() }),
            }
            if p.live {
                calls.extend(quote!(.live()));
            }
            if p.read_only {
                calls.extend(quote!(.read_only()));
            }
            if let Some(d) = &p.desc {
                calls.extend(quote!(.describe(#d)));
            }
            if let Some(t) = &p.type_name {
                calls.extend(quote!(.type_named(#t)));
            }
            class_steps.push(quote! {
                class.property(<#fty as ::qom::PropertyField>::property::<#ty>(#pname, |o| &o.#ident)#calls);
            });
        } else {
            inits.push(quote! { #ident: ::core::default::Default::default() });
        }
    }
    if let Some(f) = &attr.class_init {
        class_steps.push(quote! { (#f)(class); });
    }

    let mut info = TokenStream::new();
    let mut faces = TokenStream::new();
    for i in &attr.interfaces {
        match i {
            Interface::Name(n) => info.extend(quote! { .implements(#n) }),
            Interface::Trait(t) => {
                info.extend(quote! { .implements(<#t as ::qom::Kind>::NAME) });
                faces.extend(quote! {
                    if id == ::std::any::TypeId::of::<#t>() {
                        return Some((self, const {
                            &::qom::Caster::<#t>(|a| a.downcast_ref::<#ty>().map(|s| s as &#t))
                        }));
                    }
                });
            }
        }
    }
    if attr.is_abstract {
        info.extend(quote!(.set_abstract()));
    }
    if !class_steps.is_empty() {
        info.extend(quote!(.class_init(|class| { #(#class_steps)* })));
    }
    if let Some(f) = &attr.class_base_init {
        info.extend(quote!(.class_base_init(#f)));
    }
    if let Some(f) = &attr.instance_init {
        info.extend(quote!(.instance_init(|o| (#f)(::qom::of_class::<#ty>(o)))));
    }
    if let Some(f) = &attr.post_init {
        info.extend(quote!(.instance_post_init(|o| (#f)(::qom::of_class::<#ty>(o)))));
    }

    Ok(quote! {
        impl ::core::ops::Deref for #ty {
            type Target = #up_type;
            fn deref(&self) -> &Self::Target { &self.#up }
        }
        impl ::qom::Object for #ty {
            fn base(&self) -> &::qom::Base { ::qom::Object::base(&self.#up) }
            fn level(&self, depth: usize) -> &dyn ::std::any::Any {
                if depth >= <Self as ::qom::Level>::DEPTH { self } else { ::qom::Object::level(&self.#up, depth) }
            }
            fn face(&self, id: ::std::any::TypeId) -> Option<(&dyn ::std::any::Any, &'static dyn ::std::any::Any)> {
                #faces
                ::qom::Object::face(&self.#up, id)
            }
        }
        impl ::qom::Kind for #ty {
            const NAME: &'static str = #name;
            fn of(o: &dyn ::qom::Object) -> Option<&Self> { o.cast::<Self>() }
        }
        impl ::qom::Level for #ty {
            const DEPTH: usize = <#up_type as ::qom::Level>::DEPTH + 1;
            fn build(base: ::qom::Base) -> Self {
                Self { #(#inits,)* #up: <#up_type as ::qom::Level>::build(base) }
            }
        }
        ::qom::register!(|r| r.add(::qom::TypeInfo::derived::<#ty>(<#parent as ::qom::Kind>::NAME)#info));
    })
}
