// What JavaScript does not have, by the formulas of openheart's formula/special.py (sources: NIST DLMF §5.7, §5.11,
// §7.6, §7.9, §10.25, §10.40, §25.11). A program holds those that its laws use.

// Arrays that a law fills for itself, kept from call to call.
const scratches = [];
function scratch(number, size) {
  const held = scratches[number];
  if (held !== undefined && held.length >= size) return held;
  return (scratches[number] = new Float64Array(size));
}

// -- numbers ---------------------------------------------------------------------------------------

// Half way goes to the even neighbour.
function roundEven(x) {
  const low = Math.floor(x), rest = x - low;
  if (rest < 0.5) return low;
  if (rest > 0.5) return low + 1;
  return low % 2 === 0 ? low : low + 1;
}

function isInfinite(x) {
  return x === Infinity || x === -Infinity;
}

// −1, 0 or 1; 0 for a NaN.
function sign(x) {
  return Math.sign(x) || 0;
}

function exp2(x) {
  return Math.pow(2, x);
}

// The larger of two numbers; a NaN wins.
function larger(a, b) {
  return a > b || a !== a ? a : b;
}

function smaller(a, b) {
  return a < b || a !== a ? a : b;
}

// The remainder that has the sign of b.
function modulo(a, b) {
  const rest = a % b;
  return rest !== 0 && rest < 0 !== b < 0 ? rest + b : rest;
}

function floorDivide(a, b) {
  if (b === 0) return a / b;
  const rest = a % b;
  let whole = (a - rest) / b;
  if (rest !== 0 && b < 0 !== rest < 0) whole -= 1;
  const low = Math.floor(whole);
  return whole - low > 0.5 ? low + 1 : low;
}

// aᵇ as C has it: 1 to any power, and any number to the power 0, is 1.
function power(a, b) {
  if (b === 2) return a * a;
  if (a === 1 || (a === -1 && isInfinite(b))) return 1;
  return Math.pow(a, b);
}

// bᵗ for a whole t ≥ 0, by squaring, with twice the digits on the way: rounded once, as Python's is.
function wholePower(b, t) {
  let high = 1, low = 0, baseHigh = b, baseLow = 0;
  for (let n = t; n > 0; n = Math.floor(n / 2)) {
    if (n % 2 === 1) [high, low] = twice(high, low, baseHigh, baseLow);
    [baseHigh, baseLow] = twice(baseHigh, baseLow, baseHigh, baseLow);
  }
  return high;
}

// (a + da)·(b + db) as a number and what its rounding left out (Dekker, 1971).
function twice(a, da, b, db) {
  const p = a * b, sa = 134217729 * a, sb = 134217729 * b;
  const ah = sa - (sa - a), bh = sb - (sb - b), al = a - ah, bl = b - bh;
  const rest = ah * bh - p + ah * bl + al * bh + al * bl + a * db + da * b;
  const sum = p + rest;
  return [sum, rest - (sum - p)];
}

function signBit(x) {
  return x < 0 || Object.is(x, -0);
}

function copySign(a, b) {
  const size = Math.abs(a);
  return signBit(b) ? -size : size;
}

function gcd(a, b) {
  a = Math.abs(a);
  b = Math.abs(b);
  while (b > 0) [a, b] = [b, a % b];
  return a;
}

function bitAnd(a, b) {
  return Number(BigInt(a) & BigInt(b));
}

function bitOr(a, b) {
  return Number(BigInt(a) | BigInt(b));
}

function bitXor(a, b) {
  return Number(BigInt(a) ^ BigInt(b));
}

function shiftLeft(a, b) {
  return a * Math.pow(2, b);
}

function shiftRight(a, b) {
  return Math.floor(a / Math.pow(2, b));
}

// x = mantissa · 2^exponent with ½ ≤ |mantissa| < 1.
function exponent(x) {
  if (x === 0 || x - x !== 0) return 0;
  let e = Math.max(-1022, Math.floor(Math.log2(Math.abs(x))) + 1);
  while (Math.abs(x) * Math.pow(2, -e) < 0.5) e--;
  while (Math.abs(x) * Math.pow(2, -e) >= 1) e++;
  return e;
}

function mantissa(x) {
  const e = exponent(x);
  return x * Math.pow(2, -Math.trunc(e / 2)) * Math.pow(2, -(e - Math.trunc(e / 2)));
}

// To the nearest bfloat16, half way to the even one: by way of float32's bits.
const asFloat = new Float32Array(1), asBits = new Uint32Array(asFloat.buffer);
function toBfloat16(x) {
  if (x - x !== 0) return x;
  asFloat[0] = x;
  asBits[0] = (asBits[0] + 0x7fff + ((asBits[0] >>> 16) & 1)) & 0xffff0000;
  return asFloat[0];
}

// To the nearest float16, half way to the even one; beyond 65504 to infinity.
function toFloat16(x) {
  if (x - x !== 0) return x;
  const size = Math.abs(x);
  if (size >= 65520) return x < 0 ? -Infinity : Infinity;
  const gap = size < 6.103515625e-5 ? 2 ** -24 : Math.pow(2, Math.floor(Math.log2(size)) - 10);
  const near = roundEven(size / gap) * gap;
  return x < 0 || Object.is(x, -0) ? -near : near;
}

// -- special functions -----------------------------------------------------------------------------

// e^(−x²), the square split so that no digit of it is lost.
function gauss(x) {
  const high = Math.fround(x);
  return Math.exp(-high * high) * Math.exp(-(x - high) * (x + high));
}

// erf x = 2/√π · e^(−x²) · Σ 2ⁿ x²ⁿ⁺¹ / (1·3·…·(2n+1)): no term has another sign.
function erf(x) {
  if (x !== x) return NaN;
  const size = Math.abs(x);
  if (size > 6) return Math.sign(x);
  if (size > 2) return Math.sign(x) * (1 - erfc(size));
  let term = x, sum = x;
  for (let n = 1; n < 80; n++) {
    term *= (2 * x * x) / (2 * n + 1);
    sum += term;
    if (Math.abs(term) < 1e-18 * Math.abs(sum)) break;
  }
  return 1.1283791670955126 * gauss(x) * sum;
}

// erfc x = e^(−x²)/√π · 1/(x + ½/(x + 1/(x + 1½/(x + …)))).
function erfcx(x) {
  if (x <= 1) return Math.exp(x * x) * erfc(x);
  let fraction = 0;
  for (let k = x > 5 ? 60 : Math.ceil(20 + 220 / (x * x)); k > 0; k--) fraction = k / 2 / (x + fraction);
  return 1 / (1.772453850905516 * (x + fraction));
}

function erfc(x) {
  if (x < 0) return 2 - erfc(-x);
  if (x <= 1) return 1 - erf(x);
  return x > 27.3 ? 0 : gauss(x) * erfcx(x);
}

// x with erf x = y: a first guess (Winitzki, 2008), then Newton's steps on the side that keeps digits.
function erfinv(y) {
  const size = Math.abs(y);
  if (!(size <= 1)) return NaN;
  if (size === 1) return y * Infinity;
  const logarithm = Math.log1p(-size * size), a = 2 / (Math.PI * 0.147) + logarithm / 2;
  let x = Math.sqrt(Math.max(Math.sqrt(Math.max(a * a - logarithm / 0.147, 0)) - a, 0));
  if (size < 1e-8) x = (size * 1.772453850905516) / 2;
  for (let n = 0; n < 4; n++) {
    const miss = size < 0.5 ? erf(x) - size : 1 - size - erfc(x);
    const step = ((miss * 1.772453850905516) / 2) * Math.exp(x * x);
    x -= step / (1 + x * step);
  }
  return copySign(x, y);
}

// z with Φ(z) = p: Newton's steps on log Φ in the lower tail, by symmetry in the upper.
function ndtri(p) {
  if (!(p >= 0 && p <= 1)) return NaN;
  if (p === 0 || p === 1) return p === 0 ? -Infinity : Infinity;
  if (Math.abs(p - 0.5) < 0.3) return Math.SQRT2 * erfinv(2 * p - 1);
  const low = Math.min(p, 1 - p);
  let z = -Math.sqrt(Math.max(-2 * Math.log(low), 0)) + 0.3;
  for (let n = 0; n < 60; n++) {
    const tail = 0.5 * erfc(-z / Math.SQRT2), density = Math.exp((-z * z) / 2) / Math.sqrt(2 * Math.PI);
    const raw = (tail / density) * Math.log(tail / low);
    const step = raw - raw === 0 ? Math.min(Math.max(raw, -1), 1) : 0;
    z -= step;
    if (Math.abs(step) < 1e-15) break;
  }
  return p > 0.5 ? -z : z;
}

const BERNOULLI = [
  1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798, -174611 / 330,
];
// ζ(k) − 1 for k = 2, 3, …: a sum, and Euler and Maclaurin's tail of it.
const ZETA_LESS_ONE = Array.from({ length: 58 }, (_, n) => {
  const k = n + 2;
  let sum = 0;
  for (let m = 40; m > 1; m--) sum += Math.pow(m, -k);
  return (
    sum + Math.pow(40, 1 - k) / (k - 1) - 0.5 * Math.pow(40, -k) + (k / 12) * Math.pow(40, -k - 1) -
    ((k * (k + 1) * (k + 2)) / 720) * Math.pow(40, -k - 3) +
    ((k * (k + 1) * (k + 2) * (k + 3) * (k + 4)) / 30240) * Math.pow(40, -k - 5)
  );
});

// log |Γ(x)|: its power series about 2, Stirling's expansion above 7, reflected below ½.
function lgamma(x) {
  if (x !== x) return NaN;
  if ((x <= 0 && x === Math.floor(x)) || x - x !== 0) return Infinity;
  if (x < 0.5) {
    return 1.1447298858494002 - Math.log(Math.abs(Math.sin(Math.PI * (x - roundEven(x))))) - lgamma(1 - x);
  }
  let t = x, moved = 0;
  for (let n = 0; n < 5 && t > 2.5 && t < 7.5; n++) moved += Math.log(--t);
  if (t > 2.5) {
    let tail = 0;
    BERNOULLI.forEach((b, n) => (tail += (b / (2 * (n + 1) * (2 * n + 1))) * Math.pow(t, -1 - 2 * n)));
    return (t - 0.5) * Math.log(t) - t + 0.9189385332046727 + tail;
  }
  if (t < 1.5) moved -= Math.log(t);
  const z = t < 1.5 ? t - 1 : t - 2;
  let series = 0;
  for (let k = ZETA_LESS_ONE.length + 1; k > 1; k--) series = (((k % 2 ? -1 : 1) * ZETA_LESS_ONE[k - 2]) / k + series) * z;
  return (1 - 0.5772156649015329 + series) * z + moved;
}

// ψ(x) = Γ′(x)/Γ(x): reflected to x > 0, raised to x ≥ 10, then the asymptotic expansion.
function digamma(x) {
  if (x === 0) return Object.is(x, -0) ? Infinity : -Infinity;
  if (x === Infinity) return Infinity;
  if (x < 0) {
    if (x === Math.floor(x)) return NaN;
    return digamma(1 - x) - Math.PI / Math.tan(Math.PI * (x - roundEven(x)));
  }
  let t = x, raised = 0;
  for (; t < 10; t++) raised -= 1 / t;
  let tail = 0;
  BERNOULLI.forEach((b, n) => (tail += (b / (2 * (n + 1))) * Math.pow(t, -2 * (n + 1))));
  return raised + Math.log(t) - 0.5 / t - tail;
}

// Hurwitz's ζ(s, q) = Σₙ (q + n)⁻ˢ for s > 1: some terms, then Euler and Maclaurin's tail.
function zeta(s, q) {
  if (s === 1) return Infinity;
  if (!(s > 1) || q !== q || isInfinite(q)) return NaN;
  if (q <= 0 && q === Math.floor(q)) return Infinity;
  if (q <= 0 && s !== Math.floor(s)) return NaN;
  let t = q, value = 0;
  for (let n = 0; n < 20; n++) value += Math.pow(t++, -s);
  for (let n = 0; n < 64 && t < 10; n++) value += Math.pow(t++, -s);
  value += Math.pow(t, 1 - s) / (s - 1) + 0.5 * Math.pow(t, -s);
  let factor = s, raised = Math.pow(t, -s - 1), factorial = 2;
  BERNOULLI.forEach((b, n) => {
    const k = n + 1;
    value += (b / factorial) * factor * raised;
    factor *= (s + 2 * k - 1) * (s + 2 * k);
    raised /= t * t;
    factorial *= (2 * k + 1) * (2 * k + 2);
  });
  return value;
}

// ψ⁽ⁿ⁾(x) = (−1)ⁿ⁺¹ n! ζ(n + 1, x); n = 0 is digamma.
function polygamma(n, x) {
  if (n === 0) return digamma(x);
  let factorial = 1;
  for (let k = 2; k <= n; k++) factorial *= k;
  return (n % 2 ? 1 : -1) * factorial * zeta(n + 1, x);
}

// e^(−|x|)·I(x) of order 0 or 1: the power series below 30, the expansion above.
function bessel(x, order) {
  const size = Math.abs(x);
  if (size < 30) {
    let term = order === 0 ? 1 : size / 2, series = 0;
    for (let k = 1; k < 90; k++) {
      series += term;
      term *= (size * size) / 4 / (k * (k + order));
    }
    return series * Math.exp(-size);
  }
  const mu = 4 * order * order;
  let factor = 1, expansion = 0;
  for (let k = 1; k < 30; k++) {
    expansion += factor;
    factor *= -(mu - (2 * k - 1) ** 2) / (k * 8 * size);
  }
  return expansion / Math.sqrt(2 * Math.PI * size);
}

function i0e(x) {
  return bessel(x, 0);
}

function i1e(x) {
  return copySign(bessel(x, 1), x);
}

function i0(x) {
  return bessel(x, 0) * Math.exp(Math.abs(x));
}

function i1(x) {
  return copySign(bessel(x, 1), x) * Math.exp(Math.abs(x));
}

// -- errors: how far an honest computation may lie from the number here ---------------------------------

// Unit roundoffs and smallest normal numbers of float64, float32, float16 and bfloat16.
const U64 = 2 ** -53 + 2 ** -53, U32 = 2 ** -24 + 2 ** -53, U16 = 2 ** -11 + 2 ** -53, UB = 2 ** -8 + 2 ** -53;
const T64 = 2 ** -1022, T32 = 2 ** -126, T16 = 2 ** -14;

// γₙ = n·u / (1 − n·u): a sum of n + 1 terms, added in any order, lies within γₙ·Σ|tᵢ| of the exact one.
function gamma(n, unit) {
  const nu = Math.max(n, 0) * unit;
  return nu < 0.5 ? nu / (1 - nu) : nu;
}

// An infinite result is exact; an error nobody can state is infinite.
function settle(value, error) {
  if (value - value !== 0) return 0;
  return error === error ? error : Infinity;
}

// The rounding of a constant that float32 cannot hold.
function held(x) {
  return Math.fround(x) === x || x - x !== 0 ? 0 : U32 * Math.abs(x);
}

// The rounding of a whole number that the precision cannot hold.
function whole(x, unit) {
  return Math.abs(x) * unit < 0.5 ? 0 : unit * Math.abs(x);
}

function nearest(x, e) {
  return Math.max(Math.abs(x) - e, 0);
}

// The smaller of two bounds, one of which may be unknown.
function least(a, b) {
  return a < b ? a : b;
}

// The ends of the interval are the extremes of what is monotone there.
function ends(f, x, e, value) {
  if (!(e > 0)) return 0;
  return Math.max(Math.abs(f(x + e) - value), Math.abs(f(x - e) - value));
}

function quotientError(value, b, ea, eb) {
  const spread = ea + Math.abs(value) * eb;
  return spread === 0 ? 0 : spread / Math.max(Math.abs(b) - eb, 0);
}

function powerError(a, b, ea, eb) {
  let spread = 0;
  if (ea > 0) {
    const edge = b >= 1 ? Math.abs(a) + ea : Math.max(Math.abs(a) - ea, 0);
    spread += Math.abs(b) * Math.pow(edge, b - 1) * ea;
  }
  if (eb > 0) spread += Math.abs(Math.pow(a, b)) * Math.abs(Math.log(Math.abs(a))) * eb;
  return spread;
}

// Whether a comparison may go either way: 1 or 0.
function inDoubt(a, b, e) {
  return e > 0 && !(Math.abs(a - b) > e) ? 1 : 0;
}

// How far the two sides of a condition that is in doubt lie apart, with their own errors.
function apart(a, b, ea, eb) {
  const spread = Math.abs(a - b);
  return (spread === spread ? spread : 0) + Math.max(ea, eb);
}

// The error of a stored number: the law's own bound, and what storing it rounded away.
function storeError(value, error, stored, unit, tiny, narrow) {
  if (value - value !== 0 || stored - stored !== 0) return error === 0 || value - value !== 0 ? 0 : error;
  const rounded = Math.abs(value - stored);
  const own = unit * Math.abs(value) + tiny * unit;
  if (narrow) return error === 0 && rounded === 0 ? 0 : error + own + rounded;
  return error === 0 && rounded !== 0 ? own + rounded : error + rounded;
}
