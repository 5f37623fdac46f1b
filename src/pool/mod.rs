//! Who answers: the backends of a pool and the decision between them.
//!
//! Start at [`policy`].

pub mod policy;
