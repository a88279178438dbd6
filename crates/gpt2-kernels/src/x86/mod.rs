//! The rows for x86-64: `avx2`, `avx512` and `avx512-vnni`.

pub(crate) mod avx2;
pub(crate) mod avx512;
pub(crate) mod avx512_vnni;
