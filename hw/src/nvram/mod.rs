//! Non-volatile and firmware-facing stores.

pub mod fw_cfg;
pub mod fw_cfg_data;
pub mod fw_cfg_items;
