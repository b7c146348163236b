//! A whole cluster on a virtual clock under one seed.
