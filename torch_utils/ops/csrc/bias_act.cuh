// Bias, activation, gain and clamp in one pass over memory; its derivative; and the derivative of that.
//
// With v = x + b, y = clip(gain * f(v)):
//   order 0: y                                       from ref = x
//   order 1: dy * gain * f'(v) where not clipped     from ref = y, f' being written in u = y / gain; swish from ref = x
//   order 2: ddx * the derivative of order 1 by ref
// Piecewise linear activations and their derivatives take the value that torch gives at the kink. Those three, which
// networks are made of, read and write 16 bytes at a time; the others one element, to keep the code small.
#pragma once
#include "common.cuh"
#include "params.cuh"

namespace sg {

enum Activation { LINEAR = 1, RELU, LRELU, TANH, SIGMOID, ELU, SELU, SOFTPLUS, SWISH };

constexpr double SELU_SCALE = 1.0507009873554805;
constexpr double SELU_ALPHA = 1.6732632423543772;

__device__ inline float exponential(float v) { return expf(v); }
__device__ inline double exponential(double v) { return exp(v); }
__device__ inline float exponential_m1(float v) { return expm1f(v); }
__device__ inline double exponential_m1(double v) { return expm1(v); }
__device__ inline float logarithm_1p(float v) { return log1pf(v); }
__device__ inline double logarithm_1p(double v) { return log1p(v); }
__device__ inline float hyperbolic_tangent(float v) { return tanhf(v); }
__device__ inline double hyperbolic_tangent(double v) { return tanh(v); }

template <typename A> __device__ inline A logistic(A v) { return A(1) / (A(1) + exponential(-v)); }

// f(v). Comparisons are written so that a NaN comes out as one.
template <int ACT, typename A> __device__ inline A activate(A v, A alpha) {
    if (ACT == RELU) return v < A(0) ? A(0) : v;
    if (ACT == LRELU) return v < A(0) ? v * alpha : v;
    if (ACT == TANH) return hyperbolic_tangent(v);
    if (ACT == SIGMOID) return logistic(v);
    if (ACT == ELU) return v > A(0) ? v : exponential_m1(v);
    if (ACT == SELU) return A(SELU_SCALE) * (v > A(0) ? v : A(SELU_ALPHA) * exponential_m1(v));
    if (ACT == SOFTPLUS) return v > A(20) ? v : logarithm_1p(exponential(v));
    if (ACT == SWISH) return v / (A(1) + exponential(-v));
    return v;
}

// f'(v), given v (which only swish looks at) and u = f(v).
template <int ACT, typename A> __device__ inline A d_act(A v, A u, A alpha) {
    if (ACT == RELU) return u > A(0) ? A(1) : A(0);
    if (ACT == LRELU) return u > A(0) ? A(1) : alpha;
    if (ACT == TANH) return A(1) - u * u;
    if (ACT == SIGMOID) return u * (A(1) - u);
    if (ACT == ELU) return u > A(0) ? A(1) : u + A(1);
    if (ACT == SELU) return u > A(0) ? A(SELU_SCALE) : u + A(SELU_SCALE * SELU_ALPHA);
    if (ACT == SOFTPLUS) return -exponential_m1(-u);
    if (ACT == SWISH) {
        const A s = logistic(v);
        return s * (A(1) + v * (A(1) - s));
    }
    return A(1);
}

// The derivative of d_act(): by u, but for swish by v.
template <int ACT, typename A> __device__ inline A d2_act(A v, A u) {
    if (ACT == TANH) return A(-2) * u;
    if (ACT == SIGMOID) return A(1) - A(2) * u;
    if (ACT == ELU || ACT == SELU) return u > A(0) ? A(0) : A(1);
    if (ACT == SOFTPLUS) return exponential(-u);
    if (ACT == SWISH) {
        const A s = logistic(v);
        return s * (A(1) - s) * (A(2) + v * (A(1) - A(2) * s));
    }
    return A(0);
}

template <typename A> struct BiasActScalars {
    A alpha, gain, clamp;
    A stored_clamp;  // what the clamp is as an element of y
    bool clamped;
};

template <int ORDER, int ACT, typename A>
__device__ inline A bias_act_element(A ref, A b, A dy, A ddx, const BiasActScalars<A>& s) {
    if constexpr (ORDER == 0) {
        const A y = activate<ACT>(ref + b, s.alpha) * s.gain;
        if (!s.clamped) return y;
        return y > s.clamp ? s.clamp : y < -s.clamp ? -s.clamp : y;
    } else {
        const A v = ref + b;
        const A y = ACT == SWISH ? activate<ACT>(v, s.alpha) * s.gain : ref;
        const A size = y < A(0) ? -y : y;
        // A saved y is clipped already: one at the limit was cut (or just touches it, which cannot be distinguished).
        if (s.clamped && (ACT == SWISH ? size > s.clamp : size >= s.stored_clamp)) return A(0);
        const A u = ACT == SWISH ? A(0) : y / s.gain;
        if (ORDER == 1) return dy * s.gain * d_act<ACT>(v, u, s.alpha);
        return ddx * dy * (ACT == SWISH ? s.gain : A(1)) * d2_act<ACT>(v, u);  // du/dy = 1 / gain cancels the gain
    }
}

// Elements i, i + 1, ... of one pack; order 0 or 1.
template <typename T, int ORDER, int ACT, typename I>
__device__ inline void bias_act_pack(const BiasActParams& p, const BiasActScalars<Acc<T>>& s, I i) {
    using A = Acc<T>;
    const bool has_b = p.b != nullptr, b_varies = p.step_b == 1;
    const T* b = static_cast<const T*>(p.b) + (has_b ? i / I(p.step_b) % I(p.size_b) : 0);
    const Pack<T> ref = read_pack(static_cast<const T*>(p.ref) + i);
    Pack<T> dy{}, out;
    if (ORDER == 1) dy = read_pack(static_cast<const T*>(p.dy) + i);
#pragma unroll
    for (int k = 0; k < Pack<T>::SIZE; ++k) {
        const A bias = has_b ? A(read(b + (b_varies ? k : 0))) : A(0);
        narrow(bias_act_element<ORDER, ACT, A>(widen(ref.item[k]), bias, widen(dy.item[k]), A(0), s), out.item[k]);
    }
    write_pack(static_cast<T*>(p.out) + i, out);
}

template <typename T, int ORDER, int ACT, typename I>
__device__ inline void bias_act_single(const BiasActParams& p, const BiasActScalars<Acc<T>>& s, I i) {
    using A = Acc<T>;
    const A bias = p.b ? A(read(static_cast<const T*>(p.b) + i / I(p.step_b) % I(p.size_b))) : A(0);
    const A dy = ORDER >= 1 ? read(static_cast<const T*>(p.dy) + i) : A(0);
    const A ddx = ORDER == 2 ? read(static_cast<const T*>(p.ddx) + i) : A(0);
    const A ref = read(static_cast<const T*>(p.ref) + i);
    write(static_cast<T*>(p.out) + i, bias_act_element<ORDER, ACT, A>(ref, bias, dy, ddx, s));
}

template <typename T, int ORDER, typename I, int ACT> __device__ inline void bias_act_all(const BiasActParams& p) {
    using A = Acc<T>;
    T stored_clamp;
    narrow(A(p.clamp), stored_clamp);
    const BiasActScalars<A> s{A(p.alpha), A(p.gain), A(p.clamp), widen(stored_clamp), p.clamp >= 0};
    const I numel = I(p.numel), first = I(blockIdx.x) * THREADS + threadIdx.x, stride = I(gridDim.x) * THREADS;
    I begin = 0;  // of what is done one by one
    if constexpr (ACT <= LRELU && ORDER <= 1) {
        const I packs = p.packed ? numel / Pack<T>::SIZE : 0;
        for (I i = first; i < packs; i += stride) bias_act_pack<T, ORDER, ACT, I>(p, s, i * Pack<T>::SIZE);
        begin = packs * Pack<T>::SIZE;
    }
#pragma unroll 1
    for (I i = begin + first; i < numel; i += stride) bias_act_single<T, ORDER, ACT, I>(p, s, i);
}

// I is the type of an index: 32 bits below 2^31 elements, where divisions are several times cheaper, else 64.
template <typename T, int ORDER, typename I> __device__ inline void bias_act(const BiasActParams& p) {
    switch (p.act) {
        case LINEAR: return bias_act_all<T, ORDER, I, LINEAR>(p);
        case RELU: return bias_act_all<T, ORDER, I, RELU>(p);
        case LRELU: return bias_act_all<T, ORDER, I, LRELU>(p);
        case TANH: return bias_act_all<T, ORDER, I, TANH>(p);
        case SIGMOID: return bias_act_all<T, ORDER, I, SIGMOID>(p);
        case ELU: return bias_act_all<T, ORDER, I, ELU>(p);
        case SELU: return bias_act_all<T, ORDER, I, SELU>(p);
        case SOFTPLUS: return bias_act_all<T, ORDER, I, SOFTPLUS>(p);
        case SWISH: return bias_act_all<T, ORDER, I, SWISH>(p);
    }
}

}  // namespace sg
