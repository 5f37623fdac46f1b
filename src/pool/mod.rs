//! Who answers: the backends of a pool and the decision between them.
//!
//! Start at [`policy`].

pub mod affinity;
pub mod health;
pub mod policy;
pub mod status;
