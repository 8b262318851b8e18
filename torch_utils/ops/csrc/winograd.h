// Winograd's convolution F(4x4, 3x3) (Lavin & Gray 2016, arXiv:1509.09308) of channels_last images, in one pass: the
// input's scales, the transforms, the 36 matrix products between them, and what follows a convolution.
//
// Tiles of 4x4 outputs read 6x6 inputs. The points are 0, +-A, +-B and infinity with A = sqrt(1/2) and B = sqrt(2), whose
// rounding errors are a quarter of those of the usual 1 and 2. Images are transformed a register of channels at a time,
// WIDTH of them; LANES channels are neighbours in memory.
//
// Layouts: weights u [36][o / PANEL][c][PANEL]; inputs v and products m of a chunk of tiles
// [tiles / ROWS][channels / LANES][36][ROWS][LANES], in which both a transform and a product stay in few pages of memory.
// All are filled up with zeros.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace winograd {

typedef int64_t i64;

#if defined(__AVX512F__)
const char* const INSTRUCTIONS = "AVX-512";
const i64 WIDTH = 16, VECTORS = 2, ROWS = 12;  // floats per register; a product keeps ROWS x VECTORS sums in registers
#elif defined(__AVX2__)
const char* const INSTRUCTIONS = "AVX2";
const i64 WIDTH = 8, VECTORS = 2, ROWS = 6;
#elif defined(__aarch64__)
const char* const INSTRUCTIONS = "NEON";
const i64 WIDTH = 4, VECTORS = 4, ROWS = 6;
#else
const char* const INSTRUCTIONS = "no AVX2";
const i64 WIDTH = 4, VECTORS = 4, ROWS = 2;
#endif
const i64 LANES = 16, PANEL = WIDTH * VECTORS;
const i64 DEPTH = 128;  // inputs that are multiplied before the next panel: their weights stay in the first cache

typedef float lanes __attribute__((vector_size(4 * LANES)));
typedef float loose_lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef float part __attribute__((vector_size(4 * WIDTH)));
typedef float loose_part __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));

const float A = 0.70710678118654752440f, B = 1.41421356237309504880f;

inline i64 up_to(i64 value, i64 step) { return (value + step - 1) / step * step; }

// The first `count` of WIDTH numbers, zeros beyond.
inline part load(const float* from, i64 count) {
    if (count >= WIDTH) return *(const loose_part*)from;
    float some[WIDTH] = {};
    memcpy(some, from, count * sizeof(float));
    return *(const loose_part*)some;
}

inline void store(float* to, part value, i64 count) {
    if (count >= WIDTH) *(loose_part*)to = value;
    else memcpy(to, &value, count * sizeof(float));
}

// --------------------------------------------------------------------------------------------------------------------
// The transforms of lines

// Three taps a step apart to the values at the six points.
inline void weight_line(const lanes* g, i64 step, lanes* to, i64 to_step) {
    const lanes a = g[0], b = g[step], c = g[2 * step];
    const lanes even_a = a * (-2.f / 3) + c * (-1.f / 3), odd_a = b * (-2 * A / 3);
    const lanes even_b = a * (1.f / 6) + c * (1.f / 3), odd_b = b * (B / 6);
    to[0] = a;
    to[to_step] = even_a + odd_a;
    to[2 * to_step] = even_a - odd_a;
    to[3 * to_step] = even_b + odd_b;
    to[4 * to_step] = even_b - odd_b;
    to[5 * to_step] = c;
}

// B' v of six values a step apart, in place.
inline void input_line(part* v, i64 step) {
    const float ab2 = A * B * B, a2b = A * A * B;
    const part a = v[0], b = v[step], c = v[2 * step], d = v[3 * step], e = v[4 * step], f = v[5 * step];
    const part even_a = e - 2 * c, odd_a = A * d - ab2 * b;       // B * B = 2
    const part even_b = e - 0.5f * c, odd_b = B * d - a2b * b;    // A * A = 1 / 2
    v[0] = a - 2.5f * c + e;
    v[step] = even_a + odd_a;
    v[2 * step] = even_a - odd_a;
    v[3 * step] = even_b + odd_b;
    v[4 * step] = even_b - odd_b;
    v[5 * step] = b - 2.5f * d + f;
}

// A' v: four values out of six a step apart, to the first four places.
inline void output_line(part* v, i64 step) {
    const float a3 = A * A * A, b3 = B * B * B;
    const part a = v[0], b = v[step], c = v[2 * step], d = v[3 * step], e = v[4 * step], f = v[5 * step];
    const part sum = b + c, difference = b - c, sum2 = d + e, difference2 = d - e;
    v[0] = a + sum + sum2;
    v[step] = A * difference + B * difference2;
    v[2 * step] = 0.5f * sum + 2 * sum2;
    v[3 * step] = a3 * difference + b3 * difference2 + f;
}

// --------------------------------------------------------------------------------------------------------------------
// Weights

// w [o, c, 3, 3] with these steps from one output and input to the next, and from tap to tap → u. LINE transforms three
// taps to six values, along either axis.
template <void LINE(const lanes*, i64, lanes*, i64)>
void weights(const float* w, float* u, i64 o, i64 c, i64 o_step, i64 c_step, i64 tap_step, int threads) {
    const i64 groups = up_to(o, PANEL) / LANES, panels = up_to(o, PANEL) / PANEL;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (i64 group = 0; group < groups; group++) {
        const i64 first = group * LANES, outputs = o - first < LANES ? o - first : LANES;
        float* panel = u + first / PANEL * c * PANEL + first % PANEL;
        for (i64 base = 0; base < c; base += LANES) {  // so many inputs at a time that memory is written in runs
            const i64 count = c - base < LANES ? c - base : LANES;
            lanes all[LANES][36];
            for (i64 i = 0; i < count; i++) {
                lanes g[9] = {}, half[18];
                for (i64 j = 0; j < outputs; j++) {
                    const float* from = w + (first + j) * o_step + (base + i) * c_step;
                    for (i64 tap = 0; tap < 9; tap++) g[tap][j] = from[tap * tap_step];
                }
                for (i64 j = 0; j < 3; j++) LINE(g + j, 3, half + j, 3);
                for (i64 j = 0; j < 6; j++) LINE(half + 3 * j, 1, all[i] + 6 * j, 1);
            }
            for (i64 p = 0; p < 36; p++)
                for (i64 i = 0; i < count; i++) *(loose_lanes*)(panel + (p * panels * c + base + i) * PANEL) = all[i][p];
        }
    }
}

// --------------------------------------------------------------------------------------------------------------------
// One convolution

struct Convolution {
    const float *x, *u;
    float* y;                 // [n, h, w, c] → [n, h, w, o]
    i64 n, h, w, c, o;
    const float *style;       // [n, c]: scales of the inputs; null: absent
    const float *scale, *noise, *b;  // [n, o], [n or 1, h * w], [o]: y = clip(act(y * scale + noise + b)); null: absent
    i64 noise_step;           // from one image's noise to the next one's
    float high, low, clamp;   // factors above and below zero; infinity: no clamp
};

// Tiles that are transformed together: whole rows of them, or a part of one row.
struct Chunk {
    i64 first_row, rows, first, across;  // rows count through all images
};

const i64 POINT = ROWS * LANES;  // numbers from one point to the next

// Where tile t begins, of all that have so many points and groups of channels.
template <i64 POINTS>
inline i64 place(i64 t, i64 group, i64 groups) {
    return ((t / ROWS * groups + group) * POINTS * ROWS + t % ROWS) * LANES;
}

// The inputs of one tile at (y0, x0), which may lie outside of the image in part.
template <i64 SIDE>
void read_tile(const Convolution& k, const float* x, i64 y0, i64 x0, i64 count, part style, part* tile) {
    const float* corner = x + (y0 * k.w + x0) * k.c;
    if (y0 >= 0 && x0 >= 0 && y0 + SIDE <= k.h && x0 + SIDE <= k.w && count >= WIDTH) {
#pragma GCC unroll 6
        for (i64 i = 0; i < SIDE; i++)
#pragma GCC unroll 6
            for (i64 j = 0; j < SIDE; j++)
                tile[i * SIDE + j] = *(const loose_part*)(corner + (i * k.w + j) * k.c) * style;
        return;
    }
    for (i64 i = 0; i < SIDE; i++)
        for (i64 j = 0; j < SIDE; j++) {
            const bool inside = y0 + i >= 0 && y0 + i < k.h && x0 + j >= 0 && x0 + j < k.w;
            tile[i * SIDE + j] = inside ? load(corner + (i * k.w + j) * k.c, count) * style : part{};
        }
}

inline void read(const Convolution& k, const Chunk& chunk, float* v) {
    const i64 groups = up_to(k.c, LANES) / LANES, down = (k.h + 3) / 4, tiles = chunk.rows * chunk.across;
    for (i64 block = 0; block < tiles; block += ROWS)
        for (i64 base = 0; base < k.c; base += WIDTH) {
            const i64 count = k.c - base;
            for (i64 t = block; t < block + ROWS && t < tiles; t++) {
                const i64 row = chunk.first_row + t / chunk.across, image = row / down;
                const part style = k.style ? load(k.style + image * k.c + base, count) : part{} + 1.f;
                part tile[36];
                read_tile<6>(k, k.x + image * k.h * k.w * k.c + base, row % down * 4 - 1,
                             (chunk.first + t % chunk.across) * 4 - 1, count, style, tile);
#pragma GCC unroll 6
                for (i64 j = 0; j < 6; j++) input_line(tile + j, 6);
#pragma GCC unroll 6
                for (i64 i = 0; i < 6; i++) input_line(tile + i * 6, 1);
                float* to = v + place<36>(t, base / LANES, groups) + base % LANES;
#pragma GCC unroll 36
                for (i64 p = 0; p < 36; p++) *(part*)(to + p * POINT) = tile[p];
            }
        }
}

// ROWS tiles of v times the first USED registers of one panel of u: USED * WIDTH numbers of m each.
template <i64 POINTS, i64 USED>
void product(const float* a, const float* b, i64 depth, float* m, bool add) {
    const i64 GROUP = POINTS * POINT;  // numbers from one group of channels to the next
    part sum[ROWS][USED];
#pragma GCC unroll 16
    for (i64 i = 0; i < ROWS; i++)
#pragma GCC unroll 4
        for (i64 j = 0; j < USED; j++) {
            const i64 at = j * WIDTH;
            sum[i][j] = add ? *(const part*)(m + at / LANES * GROUP + i * LANES + at % LANES) : part{};
        }
    for (i64 base = 0; base < depth; base += LANES, a += GROUP) {
        const i64 count = depth - base < LANES ? depth - base : LANES;
        for (i64 k = 0; k < count; k++, b += PANEL) {
            part weight[USED];
#pragma GCC unroll 4
            for (i64 j = 0; j < USED; j++) weight[j] = *(const loose_part*)(b + j * WIDTH);
#pragma GCC unroll 16
            for (i64 i = 0; i < ROWS; i++)
#pragma GCC unroll 4
                for (i64 j = 0; j < USED; j++) sum[i][j] += weight[j] * a[i * LANES + k];
        }
    }
#pragma GCC unroll 16
    for (i64 i = 0; i < ROWS; i++)
#pragma GCC unroll 4
        for (i64 j = 0; j < USED; j++) {
            const i64 at = j * WIDTH;
            *(part*)(m + at / LANES * GROUP + i * LANES + at % LANES) = sum[i][j];
        }
}

// v [tiles, c] times u: m [tiles, o], at every point. Matrix q of the 36 in u is that of points begin[q] to
// begin[q + 1].
template <i64 POINTS>
void multiply(const Convolution& k, const i64* begin, i64 tiles, const float* v, float* m) {
    const i64 groups = up_to(k.c, LANES) / LANES, panels = up_to(k.o, PANEL) / PANEL, stored = panels * PANEL / LANES;
    for (i64 q = 0; q < 36; q++)
        for (i64 from = 0; from < k.c; from += DEPTH) {
            const i64 depth = k.c - from < DEPTH ? k.c - from : DEPTH;
            for (i64 j = 0; j < panels; j++) {
                const float* b = k.u + ((q * panels + j) * k.c + from) * PANEL;
                const bool is_half = k.o - j * PANEL <= PANEL / 2;  // the rest of the panel is zeros
                for (i64 p = begin[q]; p < begin[q + 1]; p++)
                    for (i64 t = 0; t < tiles; t += ROWS) {
                        const float* a = v + place<POINTS>(t, from / LANES, groups) + p * POINT;
                        float* to = m + place<POINTS>(t, j * PANEL / LANES, stored) + p * POINT;
                        if (is_half) product<POINTS, VECTORS / 2>(a, b, depth, to, from > 0);
                        else product<POINTS, VECTORS>(a, b, depth, to, from > 0);
                    }
            }
        }
}

inline void write(const Convolution& k, const Chunk& chunk, const float* m) {
    const i64 stored = up_to(k.o, PANEL) / LANES, down = (k.h + 3) / 4, tiles = chunk.rows * chunk.across;
    for (i64 block = 0; block < tiles; block += ROWS)
        for (i64 base = 0; base < k.o; base += WIDTH) {
            const i64 count = k.o - base;
            const part b = k.b ? load(k.b + base, count) : part{};
            for (i64 t = block; t < block + ROWS && t < tiles; t++) {
                const i64 row = chunk.first_row + t / chunk.across, image = row / down;
                const i64 y0 = row % down * 4, x0 = (chunk.first + t % chunk.across) * 4;
                const float* noise = k.noise ? k.noise + image * k.noise_step : nullptr;
                const part scale = k.scale ? load(k.scale + image * k.o + base, count) : part{} + 1.f;
                const float* from = m + place<36>(t, base / LANES, stored) + base % LANES;
                float* y = k.y + image * k.h * k.w * k.o + base;
                part tile[36];
#pragma GCC unroll 36
                for (i64 p = 0; p < 36; p++) tile[p] = *(const part*)(from + p * POINT);
#pragma GCC unroll 6
                for (i64 j = 0; j < 6; j++) output_line(tile + j, 6);
#pragma GCC unroll 4
                for (i64 i = 0; i < 4; i++) output_line(tile + i * 6, 1);
                for (i64 i = 0; i < 4 && y0 + i < k.h; i++)
                    for (i64 j = 0; j < 4 && x0 + j < k.w; j++) {
                        const i64 pixel = (y0 + i) * k.w + x0 + j;
                        const float from_noise = noise ? noise[pixel] : 0.f;
                        part value = tile[i * 6 + j];
#pragma omp simd
                        for (i64 l = 0; l < WIDTH; l++) {
                            float one = value[l] * scale[l] + (b[l] + from_noise);
                            one *= one < 0 ? k.low : k.high;
                            one = one < -k.clamp ? -k.clamp : one;
                            value[l] = one > k.clamp ? k.clamp : one;
                        }
                        store(y + pixel * k.o, value, count);
                    }
            }
        }
}

// Tiles per chunk: few enough for the second cache if there are few channels; if there are many, enough that reading the
// weights does not take longer than multiplying them.
inline i64 chunk_tiles(const Convolution& k, i64 least) {
    const i64 tiles = (k.c + k.o) / 4;
    return tiles < least ? least : tiles > 128 ? 128 : tiles;
}

inline void convolve(const Convolution& k, int threads) {
    i64 begin[37];
    for (i64 q = 0; q <= 36; q++) begin[q] = q;
    const i64 across = (k.w + 3) / 4, rows = (k.h + 3) / 4 * k.n, wanted = chunk_tiles(k, 48);
    const i64 parts = (across + wanted - 1) / wanted, width = (across + parts - 1) / parts;  // of one row
    i64 height = across >= wanted ? 1 : wanted / across;                                     // rows of a chunk
    if (height > (rows + threads - 1) / threads) height = (rows + threads - 1) / threads;
    const i64 tiles = up_to(height * width, ROWS), chunks = (rows + height - 1) / height * parts;
    const i64 v_size = 36 * up_to(k.c, LANES) * tiles, m_size = 36 * up_to(k.o, PANEL) * tiles;
#pragma omp parallel num_threads(threads)
    {
        float* v = (float*)aligned_alloc(64, (v_size + m_size) * sizeof(float));
        memset(v, 0, v_size * sizeof(float));  // tiles beyond the last are multiplied too
#pragma omp for schedule(dynamic)
        for (i64 index = 0; index < chunks; index++) {
            const i64 row = index / parts * height, first = index % parts * width;
            const Chunk chunk = {row, rows - row < height ? rows - row : height, first,
                                 across - first < width ? across - first : width};
            read(k, chunk, v);
            multiply<36>(k, begin, tiles, v, v + v_size);
            write(k, chunk, v + v_size);
        }
        free(v);
    }
}

}  // namespace winograd
