//! Elementary functions out of IEEE operations and `fma` only.
//!
//! No libm, no estimates (`rsqrt`, `rcp`): every row of the kernel table compiles these very
//! lines, so every row gives the same bits. They have no branches that depend on data, only
//! selections, so the compiler runs them across vector lanes.
//!
//! The polynomials are least-maximum fits made for this crate (Lawson's weighted least squares
//! on Chebyshev nodes, coefficients rounded to `f32`); the tests bound their errors against `f64`.

/// Natural exponential, relative error below 1e-7.
///
/// `exp(x) = 2^n exp(r)` with `n` the integer nearest to `x / ln 2` (Cody and Waite). Results below
/// the smallest normal number are 0; above x = 88.37 (just under the true limit 88.72) the result is infinite.
#[inline(always)]
#[must_use]
pub fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 leaves the nearest integer in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts; the first has few enough bits that n * LN2_HIGH is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x));
    let q = 1.381_469_4e-3f32;
    let q = q.mul_add(r, 8.368_773e-3);
    let q = q.mul_add(r, 4.166_839e-2);
    let q = q.mul_add(r, 1.666_652e-1);
    let q = q.mul_add(r, 0.499_999_94);
    let p = (r * r).mul_add(q, r) + 1.0;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    let y = p * power;
    let y = if x < -87.336_54 { 0.0 } else { y };
    if x > 88.376_26 { f32::INFINITY } else { y }
}

/// [`exp`] of a number by itself, outside of the kernels: by the processor's own `fma` where it has one, which the compiler
/// may not assume there, and would call a function for. The bits are the same.
#[must_use]
pub fn exp_alone(x: f32) -> f32 {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "fma")]
        fn fused(x: f32) -> f32 {
            exp(x)
        }
        if is_x86_feature_detected!("fma") {
            // SAFETY: the machine has these instructions.
            return unsafe { fused(x) };
        }
    }
    exp(x)
}

/// Natural logarithm of a positive, normal `f64`, relative error below 1e-13.
///
/// `ln(m 2^e) = e ln 2 + 2 artanh((m - 1) / (m + 1))` with m in [√½, √2), by the series of artanh.
#[inline(always)]
#[must_use]
pub fn ln(x: f64) -> f64 {
    const SQRT_HALF_BITS: u64 = 0x3fe6_a09e_667f_3bcd;
    let shifted = x.to_bits().wrapping_sub(SQRT_HALF_BITS);
    let exponent = (shifted as i64) >> 52;
    let m = f64::from_bits((shifted & 0x000f_ffff_ffff_ffff) + SQRT_HALF_BITS);
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let mut series = 1.0 / 19.0;
    for odd in [17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0f64] {
        series = z.mul_add(series, 1.0 / odd);
    }
    (exponent as f64).mul_add(std::f64::consts::LN_2, 2.0 * s * series)
}

/// Natural exponential in `f64`, relative error below 1e-14 for x in [-700, 700]; 0 below, infinite above.
///
/// `exp(x) = 2^n exp(r)` with `n` the integer nearest to `x / ln 2`, and exp(r) by its series.
#[must_use]
pub fn exp_f64(x: f64) -> f64 {
    const LN2_HIGH: f64 = 0.693_147_180_369_123_8;
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    if x.is_nan() {
        return x;
    }
    if !(-700.0..=700.0).contains(&x) {
        return if x < 0.0 { 0.0 } else { f64::INFINITY };
    }
    let n = (x * std::f64::consts::LOG2_E).round_ties_even();
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x));
    let series = (1..=13).rev().fold(1.0, |sum: f64, i| (r / f64::from(i)).mul_add(sum, 1.0));
    series * f64::from_bits(((n as i64 + 1023) as u64) << 52)
}

/// Natural exponential of an `f64` that is not positive, relative error below 1e-13; 0 below -700.
///
/// Without `fma`, which is a call where the compiler may not assume it, and without branches: so it runs across vector
/// lanes outside of the kernels as well.
#[inline(always)]
#[must_use]
pub fn exp_not_positive(x: f64) -> f64 {
    // Adding 1.5 * 2^52 leaves the nearest integer in the low bits of the sum.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    // ln 2 in two parts; the first has few enough bits that n * LN2_HIGH is exact.
    const LN2_HIGH: f64 = 0.693_147_180_369_123_8;
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    let shifted = x * std::f64::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    // One by the factorials, from 12 down to 1.
    let mut series = 1.0 / 479_001_600.0;
    for term in
        [39_916_800.0, 3_628_800.0, 362_880.0, 40_320.0, 5_040.0, 720.0, 120.0, 24.0, 6.0, 2.0, 1.0, 1.0]
    {
        series = series * r + 1.0 / term;
    }
    let power = f64::from_bits((shifted.to_bits() << 52).wrapping_add(1023 << 52));
    if x < -700.0 { 0.0 } else { series * power }
}

/// Hyperbolic tangent, relative error below 3e-7.
#[inline(always)]
#[must_use]
pub fn tanh(x: f32) -> f32 {
    let s = x * x;
    let p = -5.543_108e-3f32;
    let p = p.mul_add(s, 2.049_663_1e-2);
    let p = p.mul_add(s, -5.369_713_5e-2);
    let p = p.mul_add(s, 1.333_095e-1);
    let p = p.mul_add(s, -3.333_326_6e-1);
    let small = (p * s).mul_add(x, x);
    let large = 1.0 - 2.0 / (exp(2.0 * x.abs()) + 1.0);
    if s < 0.42 { small } else { large.copysign(x) }
}

/// Error function, absolute error below 2e-7.
#[inline(always)]
#[must_use]
pub fn erf(x: f32) -> f32 {
    let t = x.abs();
    let s = x * x;
    let p = 7.889_12e-5f32;
    let p = p.mul_add(s, -8.020_841e-4);
    let p = p.mul_add(s, 5.189_535e-3);
    let p = p.mul_add(s, -2.685_444_4e-2);
    let p = p.mul_add(s, 1.128_36e-1);
    let p = p.mul_add(s, -3.761_262_7e-1);
    let small = p.mul_add(s, std::f32::consts::FRAC_2_SQRT_PI) * x;
    // 1 - erf(t) = exp(-q(t)); beyond 4 the rest is less than half a unit in the last place of 1.
    let t = if t > 4.0 { 4.0 } else { t };
    let q = 2.149_609_3e-5f32;
    let q = q.mul_add(t, -4.391_061_4e-4);
    let q = q.mul_add(t, 4.193_61e-3);
    let q = q.mul_add(t, -2.517_896_5e-2);
    let q = q.mul_add(t, 1.083_724_7e-1);
    let q = q.mul_add(t, 6.332_626_3e-1);
    let q = q.mul_add(t, 1.129_556_8);
    let q = q.mul_add(t, -1.834_436_7e-4);
    let large = (1.0 - exp(-q)).copysign(x);
    if s < 1.0 { small } else { large }
}

/// The function between the two matrices of an MLP: a closed set, all by the formulas of
/// transformers' `ACT2FN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Activation {
    /// `0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))`: `gelu_new` and its synonyms.
    GeluTanh,
    /// `0.5 x (1 + erf(x / √2))`: `gelu`, `gelu_python`.
    GeluErf,
    /// `GeluErf` clipped to [-10, 10]: `gelu_10`.
    GeluErfClipped,
    /// `x sigmoid(1.702 x)`: `quick_gelu`.
    QuickGelu,
    /// `max(x, 0)`.
    Relu,
    /// `max(x, 0)²`: `relu2`.
    ReluSquared,
    /// `x sigmoid(x)`: `silu`, `swish`.
    Silu,
    /// Hyperbolic tangent.
    Tanh,
}

impl Activation {
    /// Every activation, for tables and tests.
    pub const ALL: [Self; 8] = [
        Self::GeluTanh,
        Self::GeluErf,
        Self::GeluErfClipped,
        Self::QuickGelu,
        Self::Relu,
        Self::ReluSquared,
        Self::Silu,
        Self::Tanh,
    ];
}

/// `0.5 x (1 + tanh u) = x / (1 + exp(-2u))`, with u = √(2/π) (x + 0.044715 x³).
#[inline(always)]
pub(crate) fn gelu_tanh(x: f32) -> f32 {
    const MINUS_TWO_SQRT_2_OVER_PI: f32 = -1.595_769;
    let inner = (0.044_715 * x * x).mul_add(x, x);
    x / (1.0 + exp(MINUS_TWO_SQRT_2_OVER_PI * inner))
}

#[inline(always)]
pub(crate) fn gelu_erf(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

#[inline(always)]
pub(crate) fn gelu_erf_clipped(x: f32) -> f32 {
    let y = gelu_erf(x);
    let y = if y > 10.0 { 10.0 } else { y };
    if y < -10.0 { -10.0 } else { y }
}

#[inline(always)]
pub(crate) fn quick_gelu(x: f32) -> f32 {
    x / (1.0 + exp(-1.702 * x))
}

#[inline(always)]
pub(crate) fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

#[inline(always)]
pub(crate) fn relu_squared(x: f32) -> f32 {
    let y = relu(x);
    y * y
}

#[inline(always)]
pub(crate) fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps through [low, high] in 200,001 points and returns the largest error.
    fn worst(low: f32, high: f32, error: impl Fn(f32) -> f64) -> f64 {
        (0..=200_000).map(|i| error(low + (high - low) * (i as f32 / 200_000.0))).fold(0.0, f64::max)
    }

    #[test]
    fn a_number_by_itself_has_the_same_exponential() {
        for bits in (0..=u32::MAX).step_by(9973) {
            let x = f32::from_bits(bits);
            let (one, other) = (exp(x), exp_alone(x));
            assert!(one.to_bits() == other.to_bits() || one.is_nan() && other.is_nan(), "{x:e}");
        }
    }

    #[test]
    fn exp_is_within_its_bound_and_its_limits_hold() {
        let relative = |x: f32| (f64::from(exp(x)) / f64::from(x).exp() - 1.0).abs();
        assert!(worst(-87.0, 88.0, relative) < 1e-7, "{}", worst(-87.0, 88.0, relative));
        assert!(worst(-1.0, 1.0, relative) < 1e-7);
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-1000.0), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(89.0), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn ln_is_within_its_bound() {
        for i in 1..100_000u32 {
            for x in [
                f64::from(i) * 1e-5,
                f64::from(i) * 17.3,
                1.0 / f64::from(i).powi(9),
                1.0 + 1.0 / f64::from(i),
            ] {
                let error = (ln(x) - x.ln()).abs() / x.ln().abs().max(1e-300);
                assert!(x == 1.0 || error < 1e-13, "ln({x}) is off by {error}");
            }
        }
        assert_eq!(ln(1.0), 0.0);
    }

    #[test]
    fn exp_f64_is_within_its_bound() {
        for i in -70_000..=70_000 {
            let x = f64::from(i) * 0.01;
            assert!((exp_f64(x) / x.exp() - 1.0).abs() < 1e-14, "{x}");
        }
        assert_eq!((exp_f64(-1e9), exp_f64(1e9), exp_f64(0.0)), (0.0, f64::INFINITY, 1.0));
        assert!(exp_f64(f64::NAN).is_nan());
    }

    #[test]
    fn exp_not_positive_is_within_its_bound() {
        for i in 0..=70_000 {
            let x = f64::from(i) * -0.01;
            assert!((exp_not_positive(x) / x.exp() - 1.0).abs() < 1e-13, "{x}");
        }
        assert_eq!(
            [0.0, -0.0, -700.1, -1e9, f64::NEG_INFINITY].map(exp_not_positive),
            [1.0, 1.0, 0.0, 0.0, 0.0]
        );
        assert!(exp_not_positive(f64::NAN).is_nan());
    }

    #[test]
    fn tanh_and_erf_are_within_their_bounds() {
        let relative = |x: f32| (f64::from(tanh(x)) / f64::from(x).tanh() - 1.0).abs();
        assert!(worst(1e-6, 12.0, relative) < 3e-7, "{}", worst(1e-6, 12.0, relative));
        assert!(worst(-12.0, -1e-6, relative) < 3e-7);
        assert_eq!((tanh(f32::INFINITY), tanh(f32::NEG_INFINITY)), (1.0, -1.0));
        assert!(tanh(f32::NAN).is_nan() && erf(f32::NAN).is_nan());
        let absolute = |x: f32| (f64::from(erf(x)) - reference_erf(f64::from(x))).abs();
        assert!(worst(-6.0, 6.0, absolute) < 2e-7, "{}", worst(-6.0, 6.0, absolute));
        assert_eq!((erf(f32::INFINITY), erf(f32::NEG_INFINITY)), (1.0, -1.0));
    }

    /// The series `2/√π Σ x (2x²)^n / (2n+1)!! exp(-x²)`, all of whose terms are positive.
    fn reference_erf(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..400 {
            term *= 2.0 * x * x / f64::from(2 * n + 1);
            sum += term;
        }
        2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum
    }

    #[test]
    fn gelu_tanh_equals_its_formula() {
        let formula = |x: f64| {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())
        };
        let error =
            |x: f32| (f64::from(gelu_tanh(x)) - formula(f64::from(x))).abs() / f64::from(x).abs().max(1.0);
        assert!(worst(-12.0, 12.0, error) < 3e-7, "{}", worst(-12.0, 12.0, error));
        assert_eq!(gelu_tanh(100.0), 100.0);
        assert_eq!(gelu_tanh(-100.0), 0.0);
    }
}
