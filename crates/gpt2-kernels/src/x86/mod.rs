//! The rows for x86-64: `avx2` and `avx512`.

pub(crate) mod avx2;
pub(crate) mod avx512;
