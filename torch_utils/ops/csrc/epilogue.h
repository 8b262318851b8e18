// What follows a convolution: clip(gain * act(x * scale + noise + b)), where act has slope 1 above zero and `slope` below.
#pragma once
#include <cstdint>

namespace {

typedef int64_t i64;

template <typename T>
struct Epilogue {
    const T *scale, *noise, *b;  // [n, c], [n or 1, pixels], [c]; null: absent
    i64 noise_step;              // from one image's noise to the next one's
    T slope, gain, clamp;        // clamp < 0: none
};

template <typename T>
inline T activate(T v, T low, T high, T clamp) {
    v *= v < 0 ? low : high;
    v = v < -clamp ? -clamp : v;
    return v > clamp ? clamp : v;
}

// One row of channels (channels_last) of image n.
template <typename T, bool SCALE, bool BIAS>
inline void activate_row(const T* x, T* y, i64 c, const T* scale, const T* b, T noise, T low, T high, T clamp) {
#pragma omp simd
    for (i64 j = 0; j < c; j++) {
        T v = SCALE ? x[j] * scale[j] : x[j];
        v += noise;
        if (BIAS) v += b[j];
        y[j] = activate(v, low, high, clamp);
    }
}

// `size` pixels of image n, from pixel `first` on, each a row of channels.
template <typename T>
void activate_pixels(const T* x, T* y, i64 n, i64 first, i64 size, i64 c, const Epilogue<T>& e) {
    const T high = e.gain, low = e.gain * e.slope, clamp = e.clamp < 0 ? T(__builtin_inf()) : e.clamp;
    const T* scale = e.scale ? e.scale + n * c : nullptr;
    for (i64 p = 0; p < size; p++, x += c, y += c) {
        const T noise = e.noise ? e.noise[n * e.noise_step + first + p] : T(0);
        if (scale && e.b) activate_row<T, true, true>(x, y, c, scale, e.b, noise, low, high, clamp);
        else if (scale) activate_row<T, true, false>(x, y, c, scale, e.b, noise, low, high, clamp);
        else if (e.b) activate_row<T, false, true>(x, y, c, scale, e.b, noise, low, high, clamp);
        else activate_row<T, false, false>(x, y, c, scale, e.b, noise, low, high, clamp);
    }
}

}  // namespace
