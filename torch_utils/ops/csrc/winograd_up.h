// Transposed 3x3 convolutions with stride 2 of channels_last images, a 4x4 filter, and what follows, in one pass.
//
// Along one axis, the outputs for taps a, b, c are y[2 i] = a x[i] + c x[i - 1] and y[2 i + 1] = b x[i]. The even ones
// are a convolution with two taps, for which Winograd's F(4, 2) multiplies five times for four outputs; the points are
// 0, 1/2, -1, 2 and infinity. So tiles of 4x4 inputs (of 5x5, with those before) become 8x8 outputs by 9 * 9 products
// per pair of channels instead of 12 * 12. Only 36 of the matrices differ, because odd outputs share theirs.
//
// A band of rows of tiles goes into a buffer of lines with the last lines of the band before, and from there through the
// filter to the result. The image between convolution and filter is never whole.
#pragma once
#include "epilogue.h"
#include "winograd.h"

namespace winograd {
namespace up {

const i64 POINTS = 81, CARRIED = 3;  // lines of one band that the next one's filter reads

// Points are pairs of one along each axis: five of the even outputs, then four odd outputs. Those that share a matrix
// are neighbours.
struct Order {
    i64 place[POINTS], begin[37];

    Order() {
        i64 number = 0;
        for (i64 q = 0; q < 36; q++) {
            begin[q] = number;
            for (i64 i = q / 6; i < (q / 6 < 5 ? q / 6 + 1 : 9); i++)
                for (i64 j = q % 6; j < (q % 6 < 5 ? q % 6 + 1 : 9); j++) place[i * 9 + j] = number++;
        }
        begin[36] = number;
    }
};

// Three taps a step apart to the values at the five points of even outputs, and the tap of odd ones.
inline void weight_line(const lanes* g, i64 step, lanes* to, i64 to_step) {
    const lanes before = g[2 * step], now = g[0];  // what the input before the present one is multiplied by, and it
    to[0] = before;
    to[to_step] = (before + 0.5f * now) * (-8.f / 9);
    to[2 * to_step] = (before - now) * (-2.f / 9);
    to[3 * to_step] = (before + 2 * now) * (1.f / 9);
    to[4 * to_step] = now;
    to[5 * to_step] = g[step];
}

// Five inputs a step apart to the values at the five points.
inline void input_line(const part* v, i64 step, part* to, i64 to_step) {
    const part a = v[0], b = v[step], c = v[2 * step], d = v[3 * step], e = v[4 * step];
    to[0] = a - 1.5f * (b + c) + d;
    to[to_step] = d - c - 2 * b;
    to[2 * to_step] = b - 2.5f * c + d;
    to[3 * to_step] = d + 0.5f * (c - b);
    to[4 * to_step] = b - 1.5f * (c + d) + e;
}

// The values at the five points to four even outputs.
inline void output_line(const part* m, i64 step, part* to, i64 to_step) {
    const part a = m[0], b = m[step], c = m[2 * step], d = m[3 * step], e = m[4 * step];
    to[0] = a + b + c + d;
    to[to_step] = 0.5f * b - c + 2 * d;
    to[2 * to_step] = 0.25f * b + c + 4 * d;
    to[3 * to_step] = 0.125f * b - c + 8 * d + e;
}

// A chunk of tiles of one image x [h, w, c] → v.
inline void read(const Convolution& k, const Order& order, const float* x, const float* styles, const Chunk& chunk,
                 float* v) {
    const i64 groups = up_to(k.c, LANES) / LANES, tiles = chunk.rows * chunk.across;
    for (i64 block = 0; block < tiles; block += ROWS)
        for (i64 base = 0; base < k.c; base += WIDTH) {
            const i64 count = k.c - base;
            const part style = styles ? load(styles + base, count) : part{} + 1.f;
            for (i64 t = block; t < block + ROWS && t < tiles; t++) {
                part tile[25], half[45], line[5];
                read_tile<5>(k, x + base, (chunk.first_row + t / chunk.across) * 4 - 1,
                             (chunk.first + t % chunk.across) * 4 - 1, count, style, tile);
#pragma GCC unroll 5
                for (i64 j = 0; j < 5; j++) input_line(tile + j, 5, half + j, 5);
                for (i64 i = 0; i < 20; i++) half[25 + i] = tile[5 + i];
                float* to = v + place<POINTS>(t, base / LANES, groups) + base % LANES;
                for (i64 i = 0; i < 9; i++) {
                    input_line(half + i * 5, 1, line, 1);
                    for (i64 j = 0; j < 5; j++) *(part*)(to + order.place[i * 9 + j] * POINT) = line[j];
                    for (i64 j = 0; j < 4; j++) *(part*)(to + order.place[i * 9 + 5 + j] * POINT) = half[i * 5 + 1 + j];
                }
            }
        }
}

// m of a chunk → lines of o channels, whose first pixel is the one left of the image.
inline void write(const Convolution& k, const Order& order, const Chunk& chunk, const float* m, float* lines,
                  i64 line_size) {
    const i64 stored = up_to(k.o, PANEL) / LANES, tiles = chunk.rows * chunk.across;
    for (i64 block = 0; block < tiles; block += ROWS)
        for (i64 base = 0; base < k.o; base += WIDTH) {
            const i64 count = k.o - base;
            for (i64 t = block; t < block + ROWS && t < tiles; t++) {
                const float* from = m + place<POINTS>(t, base / LANES, stored) + base % LANES;
                float* corner = lines + t / chunk.across * 8 * line_size +
                                (1 + (chunk.first + t % chunk.across) * 8) * k.o + base;
                part tile[72], column[9], even[4];
                for (i64 j = 0; j < 9; j++) {
                    for (i64 i = 0; i < 9; i++) column[i] = *(const part*)(from + order.place[i * 9 + j] * POINT);
                    output_line(column, 1, tile + j, 18);
                    for (i64 i = 0; i < 4; i++) tile[(2 * i + 1) * 9 + j] = column[5 + i];
                }
                for (i64 i = 0; i < 8; i++) {
                    output_line(tile + i * 9, 1, even, 1);
                    for (i64 j = 0; j < 4; j++) {
                        float* to = corner + i * line_size + 2 * j * k.o;
                        store(to, even[j], count);
                        store(to + k.o, tile[i * 9 + 5 + j], count);
                    }
                }
            }
        }
}

// One line of the result [2 w, o] from four lines that begin one pixel left of it. `sums` has room for STRIP + 3 * o.
const i64 STRIP = 4096;

inline void filter(const Convolution& k, const float* const* lines, const float* fy, const float* fx, i64 image,
                   i64 row, const Epilogue<float>& e, float* sums) {
    const i64 width = 2 * k.w, step = STRIP / k.o < 4 ? 4 : STRIP / k.o;
    for (i64 begin = 0; begin < width; begin += step) {
        const i64 size = width - begin < step ? width - begin : step, o = k.o;
        const float *a = lines[0] + begin * o, *b = lines[1] + begin * o;
        const float *c = lines[2] + begin * o, *d = lines[3] + begin * o;
        float* y = k.y + ((image * 2 * k.h + row) * width + begin) * o;
#pragma omp simd
        for (i64 j = 0; j < (size + 3) * o; j++)
            sums[j] = (fy[0] * a[j] + fy[1] * b[j]) + (fy[2] * c[j] + fy[3] * d[j]);
#pragma omp simd
        for (i64 j = 0; j < size * o; j++)
            y[j] = (fx[0] * sums[j] + fx[1] * sums[j + o]) + (fx[2] * sums[j + 2 * o] + fx[3] * sums[j + 3 * o]);
        activate_pixels(y, y, image, row * width + begin, size, o, e);
    }
}

// [n, h, w, c] → [n, 2 h, 2 w, o]. Of k, scale, noise and bias are not used; those of e are.
inline void convolve(const Convolution& k, const float* fy, const float* fx, const Epilogue<float>& e, int threads) {
    static const Order order;
    const i64 across = k.w / 4 + 1, down = k.h / 4 + 1, total = down * k.n, wanted = chunk_tiles(k, 24);
    const i64 parts = (across + wanted - 1) / wanted, width = (across + parts - 1) / parts;  // of one row
    const i64 segments = threads < total / 2 ? threads : total / 2 > 0 ? total / 2 : 1;
    i64 height = across >= wanted ? 1 : wanted / across;  // rows of tiles in a band
    if (height > (total + segments - 1) / segments) height = (total + segments - 1) / segments;
    if (height > down) height = down;
    const i64 tiles = up_to(height * width, ROWS), line_size = (8 * across + 1) * k.o;
    const i64 room = up_to(k.o * 3 + STRIP, LANES);
    const i64 v_size = POINTS * up_to(k.c, LANES) * tiles, m_size = POINTS * up_to(k.o, PANEL) * tiles;
    const i64 lines_size = up_to((8 * height + CARRIED) * line_size, LANES);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (i64 segment = 0; segment < segments; segment++) {
        float* v = (float*)aligned_alloc(64, (v_size + m_size + lines_size + room) * sizeof(float));
        float *m = v + v_size, *lines = m + m_size, *sums = lines + lines_size;
        memset(v, 0, v_size * sizeof(float));  // tiles beyond the last are multiplied too
        auto compute = [&](i64 image, i64 row, i64 rows) {
            for (i64 first = 0; first < across; first += width) {
                const Chunk chunk = {row, rows, first, across - first < width ? across - first : width};
                read(k, order, k.x + image * k.h * k.w * k.c, k.style ? k.style + image * k.c : nullptr, chunk, v);
                multiply<POINTS>(k, order.begin, up_to(rows * chunk.across, ROWS), v, m);
                write(k, order, chunk, m, lines + CARRIED * line_size, line_size);
            }
        };
        auto carry = [&](i64 rows) {
            memmove(lines, lines + 8 * rows * line_size, CARRIED * line_size * sizeof(float));
        };
        const i64 end = total * (segment + 1) / segments;
        for (i64 number = total * segment / segments; number < end;) {
            const i64 image = number / down, row = number % down;
            const i64 of_image = end - number < down - row ? end - number : down - row;  // rows until the next image
            memset(lines, 0, lines_size * sizeof(float));  // also left of the image and above it
            if (row > 0) compute(image, row - 1, 1), carry(1);
            for (i64 done = 0; done < of_image; done += height) {
                const i64 first = row + done, rows = of_image - done < height ? of_image - done : height;
                compute(image, first, rows);
                const i64 last = first + rows == down ? 2 * k.h : 8 * (first + rows) - 2;
                for (i64 y = first > 0 ? 8 * first - 2 : 0; y < last; y++) {
                    const float* from[4];
                    for (i64 i = 0; i < 4; i++) from[i] = lines + (y - 1 + i - 8 * first + CARRIED) * line_size;
                    filter(k, from, fy, fx, image, y, e, sums);
                }
                carry(rows);
            }
            number += of_image;
        }
        free(v);
    }
}

}  // namespace up
}  // namespace winograd
