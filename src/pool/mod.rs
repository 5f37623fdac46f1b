//! Who answers: the backends of a pool and the decision between them.
//!
//! Start at [`status`], which says who may get a visit at all, then at [`policy`], which chooses
//! among those, and at [`affinity`], which remembers a client's choice in a sealed cookie.
//! Nothing here knows routes, and nothing here turns a failure into a status code.

pub mod affinity;
pub mod health;
pub mod policy;
pub mod sessions;
pub mod status;
