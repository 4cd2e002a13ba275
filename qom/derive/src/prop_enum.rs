//! `#[derive(PropEnum)]`.

use crate::{kebab, name_attr};
use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Result};

pub fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let ty = &input.ident;
    let name = name_attr(&input.attrs)?.unwrap_or_else(|| ty.to_string());
    let Data::Enum(data) = &input.data else { return Err(Error::new_spanned(ty, "PropEnum is for enums")) };
    let (mut names, mut variants) = (Vec::new(), Vec::new());
    for v in &data.variants {
        if !v.fields.is_empty() {
            return Err(Error::new_spanned(v, "PropEnum is for enums without fields"));
        }
        names.push(name_attr(&v.attrs)?.unwrap_or_else(|| kebab(&v.ident.to_string())));
        variants.push(&v.ident);
    }
    Ok(quote! {
        impl ::qom::PropEnum for #ty {
            const TYPE: &'static str = #name;
            const NAMES: &'static [&'static str] = &[#(#names),*];
            const VALUES: &'static [Self] = &[#(Self::#variants),*];
            fn as_str(self) -> &'static str {
                match self {
                    #(Self::#variants => #names,)*
                }
            }
        }
        impl ::qom::PropType for #ty {
            type Cell = ::qom::derive_support::AtomicCell<Self>;
            const TYPE: &'static str = <Self as ::qom::PropEnum>::TYPE;
            fn to_json(&self) -> ::qom::derive_support::Value { ::qom::PropEnum::as_str(*self).into() }
            fn take(input: ::qom::Input<'_>) -> ::core::result::Result<Self, ::qom::Reject> { ::qom::take_enum(input) }
            fn values() -> &'static [&'static str] { <Self as ::qom::PropEnum>::NAMES }
        }
    })
}
