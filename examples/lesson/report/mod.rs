//! How a run is printed.
