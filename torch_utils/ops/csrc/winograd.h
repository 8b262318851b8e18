// Winograd's convolution F(4x4, 3x3) (Lavin & Gray 2016, arXiv:1509.09308) of channels_last images: the transforms of
// inputs, weights and outputs. The 36 matrix products between them are the caller's.
//
// Tiles of 4x4 outputs read 6x6 inputs. The points are 0, +-A, +-B and infinity with A = sqrt(1/2) and B = sqrt(2), whose
// rounding errors are a quarter of those of the usual 1 and 2. Channels are innermost everywhere, so that every line of
// the transforms is a loop over channels. The weights' transform is in winograd.py.
#pragma once
#include <cstdint>

namespace winograd {

typedef int64_t i64;

const i64 LANES = 16;  // channels at a time: a tile of them stays in registers or the first cache

const double A = 0.70710678118654752440, B = 1.41421356237309504880;

// B' v of six values a step apart, in place.
template <typename T>
inline void input_line(T* v, i64 step) {
    const T ab2 = T(A * B * B), a2b = T(A * A * B), pa = T(A), pb = T(B);
    T *a = v, *b = v + step, *c = v + 2 * step, *d = v + 3 * step, *e = v + 4 * step, *f = v + 5 * step;
#pragma omp simd
    for (i64 j = 0; j < LANES; j++) {
        const T even_a = e[j] - 2 * c[j], odd_a = pa * d[j] - ab2 * b[j];              // B * B = 2
        const T even_b = e[j] - T(0.5) * c[j], odd_b = pb * d[j] - a2b * b[j];         // A * A = 1 / 2
        const T first = a[j] - T(2.5) * c[j] + e[j], last = b[j] - T(2.5) * d[j] + f[j];
        a[j] = first;
        b[j] = even_a + odd_a;
        c[j] = even_a - odd_a;
        d[j] = even_b + odd_b;
        e[j] = even_b - odd_b;
        f[j] = last;
    }
}

// LANES channels, or the last few, of one tile's inputs; its corner may lie outside of the image.
template <typename T>
inline void read_tile(const T* x, T* tile, i64 h, i64 w, i64 c, i64 y0, i64 x0, i64 lanes) {
    const bool inside = y0 >= 0 && x0 >= 0 && y0 + 6 <= h && x0 + 6 <= w;
    for (i64 i = 0; i < 6; i++)
        for (i64 j = 0; j < 6; j++) {
            T* to = tile + (i * 6 + j) * LANES;
            const i64 py = y0 + i, px = x0 + j;
            const T* from = x + (py * w + px) * c;
            if (inside && lanes == LANES) {
#pragma omp simd
                for (i64 k = 0; k < LANES; k++) to[k] = from[k];
                continue;
            }
            const bool known = py >= 0 && py < h && px >= 0 && px < w;
            for (i64 k = 0; k < LANES; k++) to[k] = known && k < lanes ? from[k] : T(0);
        }
}

// x [h, w, c] -> v [36][tiles][c] of the tiles [first, first + count), whose inputs begin one pixel before them.
template <typename T>
void input(const T* x, T* v, i64 h, i64 w, i64 c, i64 first, i64 count, int threads) {
    const i64 across = (w + 3) / 4;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (i64 t = 0; t < count; t++) {
        const i64 y0 = (first + t) / across * 4 - 1, x0 = (first + t) % across * 4 - 1;
        T tile[36 * LANES];
        for (i64 base = 0; base < c; base += LANES) {
            const i64 lanes = c - base < LANES ? c - base : LANES;
            read_tile(x + base, tile, h, w, c, y0, x0, lanes);
            for (i64 j = 0; j < 6; j++) input_line(tile + j * LANES, 6 * LANES);
            for (i64 i = 0; i < 6; i++) input_line(tile + i * 6 * LANES, LANES);
            for (i64 p = 0; p < 36; p++) {
                T* to = v + (p * count + t) * c + base;
                if (lanes == LANES) {
#pragma omp simd
                    for (i64 k = 0; k < LANES; k++) to[k] = tile[p * LANES + k];
                } else {
                    for (i64 k = 0; k < lanes; k++) to[k] = tile[p * LANES + k];
                }
            }
        }
    }
}

// A' v: four values out of six a step apart, to the first four places.
template <typename T>
inline void output_line(T* v, i64 step) {
    const T pa = T(A), pb = T(B), a3 = T(A * A * A), b3 = T(B * B * B);
    T *a = v, *b = v + step, *c = v + 2 * step, *d = v + 3 * step, *e = v + 4 * step, *f = v + 5 * step;
#pragma omp simd
    for (i64 j = 0; j < LANES; j++) {
        const T sum = b[j] + c[j], difference = b[j] - c[j];
        const T sum2 = d[j] + e[j], difference2 = d[j] - e[j];
        a[j] = a[j] + sum + sum2;
        b[j] = pa * difference + pb * difference2;
        c[j] = T(0.5) * sum + 2 * sum2;
        d[j] = a3 * difference + b3 * difference2 + f[j];
    }
}

// m [36][tiles][c] → y [h, w, c], the tiles [first, first + count).
template <typename T>
void output(const T* m, T* y, i64 h, i64 w, i64 c, i64 first, i64 count, int threads) {
    const i64 across = (w + 3) / 4;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (i64 t = 0; t < count; t++) {
        const i64 y0 = (first + t) / across * 4, x0 = (first + t) % across * 4;
        T tile[36 * LANES];
        for (i64 base = 0; base < c; base += LANES) {
            const i64 lanes = c - base < LANES ? c - base : LANES;
            for (i64 p = 0; p < 36; p++) {
                const T* from = m + (p * count + t) * c + base;
                if (lanes == LANES) {
#pragma omp simd
                    for (i64 k = 0; k < LANES; k++) tile[p * LANES + k] = from[k];
                } else {
                    for (i64 k = 0; k < LANES; k++) tile[p * LANES + k] = k < lanes ? from[k] : T(0);
                }
            }
            for (i64 j = 0; j < 6; j++) output_line(tile + j * LANES, 6 * LANES);
            for (i64 i = 0; i < 4; i++) output_line(tile + i * 6 * LANES, LANES);
            for (i64 i = 0; i < 4 && y0 + i < h; i++)
                for (i64 j = 0; j < 4 && x0 + j < w; j++) {
                    T* to = y + ((y0 + i) * w + x0 + j) * c + base;
                    if (lanes == LANES) {
#pragma omp simd
                        for (i64 k = 0; k < LANES; k++) to[k] = tile[(i * 6 + j) * LANES + k];
                    } else {
                        for (i64 k = 0; k < lanes; k++) to[k] = tile[(i * 6 + j) * LANES + k];
                    }
                }
        }
    }
}

}  // namespace winograd
