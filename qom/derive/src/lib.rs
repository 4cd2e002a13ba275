//! `#[derive(Object)]`.
