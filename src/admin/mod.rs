//! The operator's door.

pub mod view;
