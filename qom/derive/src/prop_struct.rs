//! `#[derive(PropStruct)]`.

use crate::{kebab, name_attr};
use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Fields, Result};

pub fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let ty = &input.ident;
    let name = name_attr(&input.attrs)?.unwrap_or_else(|| ty.to_string());
    let Data::Struct(syn::DataStruct { fields: Fields::Named(fields), .. }) = &input.data else {
        return Err(Error::new_spanned(ty, "PropStruct is for structs with named fields"));
    };
    let (mut keys, mut idents, mut types) = (Vec::new(), Vec::new(), Vec::new());
    for f in &fields.named {
        let ident = f.ident.as_ref().expect("named");
        keys.push(name_attr(&f.attrs)?.unwrap_or_else(|| kebab(&ident.to_string())));
        idents.push(ident);
        types.push(&f.ty);
    }
    Ok(quote! {
        impl ::qom::PropType for #ty {
            type Cell = ::qom::derive_support::RwLock<Self>;
            const TYPE: &'static str = #name;
            fn to_json(&self) -> ::qom::derive_support::Value {
                let mut map = ::qom::derive_support::Map::new();
                #(::qom::put_member(&mut map, #keys, &self.#idents);)*
                map.into()
            }
            fn take(input: ::qom::Input<'_>) -> ::core::result::Result<Self, ::qom::Reject> {
                let members = ::qom::Members::of(&input, &[#(#keys),*])?;
                Ok(Self { #(#idents: members.take::<#types>(#keys)?),* })
            }
        }
    })
}
