// CPU kernels of the operations that StyleGAN2 spends its time in besides convolutions, behind a plain C interface.
//
// Images are dense arrays [outer, c, inner]: contiguous ones have inner = H*W, channels_last ones inner = 1. Every
// output element, and every partial sum, is computed by one thread in a fixed order: results do not depend on timing.
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "epilogue.h"
#include "winograd.h"
#include "winograd_up.h"

namespace {

typedef int64_t i64;

const i64 SERIAL = 1 << 14;  // elements that are not worth a second thread
const i64 BLOCK = 256;       // terms that are added in T before they are added to a double

int team(i64 elements, int threads) { return elements < SERIAL ? 1 : threads; }

// --------------------------------------------------------------------------------------------------------------------
// The epilogue of whole images

template <typename T>
void epilogue(const T* x, T* y, i64 n, i64 c, i64 pixels, bool last, const Epilogue<T>& e, int threads) {
    const T high = e.gain, low = e.gain * e.slope, clamp = e.clamp < 0 ? T(__builtin_inf()) : e.clamp;
    threads = team(n * c * pixels, threads);
    if (last) {
#pragma omp parallel for num_threads(threads) schedule(static)
        for (i64 row = 0; row < n * pixels; row++)
            activate_pixels(x + row * c, y + row * c, row / pixels, row % pixels, 1, c, e);
        return;
    }
#pragma omp parallel for num_threads(threads) schedule(static)
    for (i64 plane = 0; plane < n * c; plane++) {
        const T scale = e.scale ? e.scale[plane] : T(1), b = e.b ? e.b[plane % c] : T(0);
        const T* noise = e.noise ? e.noise + plane / c * e.noise_step : nullptr;
        const T* in = x + plane * pixels;
        T* out = y + plane * pixels;
        if (noise) {
#pragma omp simd
            for (i64 i = 0; i < pixels; i++) out[i] = activate(in[i] * scale + noise[i] + b, low, high, clamp);
        } else {
#pragma omp simd
            for (i64 i = 0; i < pixels; i++) out[i] = activate(in[i] * scale + b, low, high, clamp);
        }
    }
}

// --------------------------------------------------------------------------------------------------------------------
// Its gradients. With d = dy * gain * act'(y), 0 where the clamp holds:
// dx = d * scale; dscale[n, part, c] = sum of d * x; db[n, part, c] = sum of d; dnoise[n, pixels] = sum of d over c.

template <typename T>
struct Gradients {
    const T *dy, *y, *x, *scale;  // y null: act is the identity; x only for dscale
    T *dx, *dscale, *db, *dnoise;  // null: not wanted
    T slope, gain, clamp;
};

template <typename T>
inline T d_activate(T dy, T y, T low, T high, T clamp) {
    T d = dy * (y > 0 ? high : low);
    d = y >= clamp ? T(0) : d;
    return y <= -clamp ? T(0) : d;
}

template <typename T>
void gradients_last(const Gradients<T>& g, i64 n, i64 c, i64 pixels, i64 parts, int threads) {
    const T high = g.gain, low = g.gain * g.slope, clamp = g.clamp < 0 ? T(__builtin_inf()) : g.clamp;
#pragma omp parallel for num_threads(team(n * c * pixels, threads)) schedule(static)
    for (i64 task = 0; task < n * parts; task++) {
        const i64 image = task / parts, begin = task % parts * pixels / parts, end = (task % parts + 1) * pixels / parts;
        const T* scale = g.scale ? g.scale + image * c : nullptr;
        T* d = (T*)malloc(3 * c * sizeof(T));
        T *sum_b = d + c, *sum_s = d + 2 * c;
        double* total = (double*)calloc(2 * c, sizeof(double));
        for (i64 first = begin; first < end; first += BLOCK) {
            memset(sum_b, 0, 2 * c * sizeof(T));
            for (i64 p = first; p < end && p < first + BLOCK; p++) {
                const i64 at = (image * pixels + p) * c;
                const T *dy = g.dy + at, *y = g.y ? g.y + at : nullptr;
                if (y) {
#pragma omp simd
                    for (i64 j = 0; j < c; j++) d[j] = d_activate(dy[j], y[j], low, high, clamp);
                } else {
#pragma omp simd
                    for (i64 j = 0; j < c; j++) d[j] = dy[j] * high;
                }
                if (g.dnoise) {
                    T sum = 0;
#pragma omp simd reduction(+ : sum)
                    for (i64 j = 0; j < c; j++) sum += d[j];
                    g.dnoise[image * pixels + p] = sum;
                }
                if (g.db)
#pragma omp simd
                    for (i64 j = 0; j < c; j++) sum_b[j] += d[j];
                if (g.dscale) {
                    const T* x = g.x + at;
#pragma omp simd
                    for (i64 j = 0; j < c; j++) sum_s[j] += d[j] * x[j];
                }
                if (g.dx && scale) {
                    T* dx = g.dx + at;
#pragma omp simd
                    for (i64 j = 0; j < c; j++) dx[j] = d[j] * scale[j];
                } else if (g.dx) {
                    memcpy(g.dx + at, d, c * sizeof(T));
                }
            }
            for (i64 j = 0; j < 2 * c; j++) total[j] += sum_b[j];
        }
        for (i64 j = 0; j < c; j++) {
            if (g.db) g.db[task * c + j] = T(total[j]);
            if (g.dscale) g.dscale[task * c + j] = T(total[c + j]);
        }
        free(d);
        free(total);
    }
}

// Planes are whole: `parts` is 1. dnoise is added up channel by channel.
template <typename T>
void gradients_planes(const Gradients<T>& g, i64 n, i64 c, i64 pixels, int threads) {
    const T high = g.gain, low = g.gain * g.slope, clamp = g.clamp < 0 ? T(__builtin_inf()) : g.clamp;
    const i64 group = g.dnoise ? c : 1;  // channels that one thread has to do
#pragma omp parallel for num_threads(team(n * c * pixels, threads)) schedule(static)
    for (i64 task = 0; task < n * c / group; task++) {
        if (g.dnoise) memset(g.dnoise + task * pixels, 0, pixels * sizeof(T));
        T d[BLOCK];
        for (i64 plane = task * group; plane < (task + 1) * group; plane++) {
            const T scale = g.scale ? g.scale[plane] : T(1);
            double total_b = 0, total_s = 0;
            for (i64 first = 0; first < pixels; first += BLOCK) {
                const i64 at = plane * pixels + first, size = pixels - first < BLOCK ? pixels - first : BLOCK;
                const T *dy = g.dy + at, *y = g.y ? g.y + at : nullptr, *x = g.x ? g.x + at : nullptr;
                T sum_b = 0, sum_s = 0;
                if (y) {
#pragma omp simd
                    for (i64 i = 0; i < size; i++) d[i] = d_activate(dy[i], y[i], low, high, clamp);
                } else {
#pragma omp simd
                    for (i64 i = 0; i < size; i++) d[i] = dy[i] * high;
                }
                if (g.dnoise) {
                    T* dnoise = g.dnoise + task * pixels + first;
#pragma omp simd
                    for (i64 i = 0; i < size; i++) dnoise[i] += d[i];
                }
                if (g.db)
#pragma omp simd reduction(+ : sum_b)
                    for (i64 i = 0; i < size; i++) sum_b += d[i];
                if (g.dscale)
#pragma omp simd reduction(+ : sum_s)
                    for (i64 i = 0; i < size; i++) sum_s += d[i] * x[i];
                if (g.dx) {
                    T* dx = g.dx + at;
#pragma omp simd
                    for (i64 i = 0; i < size; i++) dx[i] = d[i] * scale;
                }
                total_b += sum_b;
                total_s += sum_s;
            }
            if (g.db) g.db[plane] = T(total_b);
            if (g.dscale) g.dscale[plane] = T(total_s);
        }
    }
}

// --------------------------------------------------------------------------------------------------------------------
// upfirdn2d: for every output row a vertical sum over input rows into a strip, then a horizontal one over the strip

struct Axis {
    i64 size, out, taps, up, down, pad;
    // Tap k of output o reads sample (o * down - pad + k) / up, if that is whole.
    i64 first_tap(i64 o) const {
        const i64 r = (o * down - pad) % up;
        return r == 0 ? 0 : r > 0 ? up - r : -r;
    }
    i64 sample(i64 o, i64 k) const { return (o * down - pad + k) / up; }  // for the taps of `first_tap` only
};

template <typename T>
void weighted_sum(const T* const* rows, const T* t, i64 count, T* out, i64 size) {
    const T *a = rows[0], *b = rows[1], *c = rows[2], *d = rows[3];
    if (count == 4) {
#pragma omp simd
        for (i64 j = 0; j < size; j++) out[j] = (t[0] * a[j] + t[1] * b[j]) + (t[2] * c[j] + t[3] * d[j]);
    } else if (count == 2) {
#pragma omp simd
        for (i64 j = 0; j < size; j++) out[j] = t[0] * a[j] + t[1] * b[j];
    } else {
        memset(out, 0, size * sizeof(T));
        for (i64 k = 0; k < count; k++) {
            const T tap = t[k], *row = rows[k];
#pragma omp simd
            for (i64 j = 0; j < size; j++) out[j] += tap * row[j];
        }
    }
}

// For `size` pixels of c channels, a step apart: the weighted sum of `count` pixels side by side.
template <typename T>
void pixels(const T* in, i64 in_step, T* out, i64 out_step, i64 size, i64 c, const T* t, i64 count) {
    for (i64 p = 0; p < size; p++, in += in_step, out += out_step) {
        if (count == 2) {
            const T t0 = t[0], t1 = t[1];
#pragma omp simd
            for (i64 j = 0; j < c; j++) out[j] = t0 * in[j] + t1 * in[c + j];
        } else if (count == 4) {
            const T t0 = t[0], t1 = t[1], t2 = t[2], t3 = t[3];
#pragma omp simd
            for (i64 j = 0; j < c; j++)
                out[j] = (t0 * in[j] + t1 * in[c + j]) + (t2 * in[2 * c + j] + t3 * in[3 * c + j]);
        } else {
            for (i64 j = 0; j < c; j++) out[j] = 0;
            for (i64 k = 0; k < count; k++) {
                const T tap = t[k], *from = in + k * c;
#pragma omp simd
                for (i64 j = 0; j < c; j++) out[j] += tap * from[j];
            }
        }
    }
}

const i64 MAX_TAPS = 64;
const i64 STRIP = 4096;  // elements of a strip, which should stay in the first cache

// Output columns [begin, end) of one row from a strip that starts at sample `lo` and is zero outside of the image.
template <typename T>
void horizontal(const T* strip, i64 lo, T* out, i64 begin, i64 end, i64 c, const Axis& a, const T* taps, T* scratch) {
    const T* rows[MAX_TAPS];
    T chosen[MAX_TAPS];
    if (a.up == 1 && a.down == 1) {
        const T* base = strip + (begin - a.pad - lo) * c;
        for (i64 k = 0; k < a.taps; k++) rows[k] = base + k * c;
        for (i64 k = a.taps; k < 4; k++) rows[k] = base;
        weighted_sum(rows, taps, a.taps, out, (end - begin) * c);
        return;
    }
    for (i64 phase = 0; phase < a.up && begin + phase < end; phase++) {  // outputs that use the same taps
        const i64 o = begin + phase, size = (end - o + a.up - 1) / a.up, first = a.first_tap(o);
        if (c > 1) {
            const T* in = strip + (a.sample(o, first) - lo) * c;  // of neighbouring taps, samples are neighbours
            i64 count = 0;
            for (i64 k = first; k < a.taps; k += a.up) chosen[count++] = taps[k];
            pixels(in, a.down * c, out + phase * c, a.up * c, size, c, chosen, count);
            continue;
        }
        memset(scratch, 0, size * sizeof(T));
        for (i64 k = first; k < a.taps; k += a.up) {
            const T tap = taps[k], *from = strip + a.sample(o, k) - lo;
            for (i64 j = 0; j < size; j++) scratch[j] += tap * from[j * a.down];
        }
        for (i64 j = 0; j < size; j++) out[phase + j * a.up] = scratch[j];
    }
}

// Taps as an outer product fy * fx, if they are one: exactly, or for float to rounding.
template <typename T>
bool factor(const T* f, i64 fh, i64 fw, T* fy, T* fx) {
    i64 py = 0, px = 0;
    auto size = [](double v) { return v < 0 ? -v : v; };
    for (i64 i = 0; i < fh * fw; i++)
        if (size(f[i]) > size(f[py * fw + px])) py = i / fw, px = i % fw;
    const double pivot = f[py * fw + px], slack = sizeof(T) == 4 ? 2e-7 * pivot * pivot : 0;
    if (pivot == 0) return false;
    for (i64 i = 0; i < fh; i++)
        for (i64 j = 0; j < fw; j++)
            if (size(double(f[i * fw + j]) * pivot - double(f[i * fw + px]) * f[py * fw + j]) > slack) return false;
    for (i64 i = 0; i < fh; i++) fy[i] = T(f[i * fw + px] / pivot);
    memcpy(fx, f + py * fw, fw * sizeof(T));
    return true;
}

template <typename T>
void upfirdn2d(const T* x, T* y, const float* filter, bool flip, double gain, i64 images, i64 c, const Axis& ay,
               const Axis& ax, const Epilogue<T>* e, int threads) {  // e, or null: what follows, for c > 1
    const i64 area = ay.taps * ax.taps;
    T f[MAX_TAPS * MAX_TAPS], fy[MAX_TAPS], fx[MAX_TAPS];
    for (i64 i = 0; i < area; i++) f[i] = T(filter[flip ? i : area - 1 - i] * gain);
    const bool separable = factor(f, ay.taps, ax.taps, fy, fx);
    i64 step = STRIP / c * ax.up / ax.down / ax.up * ax.up;  // columns at a time, of whole phases
    if (step < 4 * ax.up) step = 4 * ax.up;
    if (step > ax.out) step = (ax.out + ax.up - 1) / ax.up * ax.up;
    const i64 strip_size = ((step - 1) * ax.down + ax.taps) / ax.up + 3;
    const i64 most = images * ay.out * ax.out * c;
#pragma omp parallel num_threads(team(most, threads))
    {
        T* strip = (T*)malloc((strip_size * c + 2 * step * c) * sizeof(T));
        T *row_sum = strip + strip_size * c, *scratch = row_sum + step * c;
#pragma omp for schedule(static)
        for (i64 row = 0; row < images * ay.out; row++) {
            const i64 image = row / ay.out, oy = row % ay.out;
            const T* rows[MAX_TAPS];
            T chosen[MAX_TAPS];
            i64 tap_of[MAX_TAPS], count = 0;
            for (i64 k = ay.first_tap(oy); k < ay.taps; k += ay.up) {
                const i64 iy = ay.sample(oy, k);
                if (iy < 0 || iy >= ay.size) continue;
                rows[count] = x + (image * ay.size + iy) * ax.size * c;
                tap_of[count] = k;
                chosen[count++] = separable ? fy[k] : T(1);
            }
            for (i64 begin = 0; begin < ax.out; begin += step) {
                const i64 end = begin + step < ax.out ? begin + step : ax.out;
                // Rounded towards zero or not, this covers what is read.
                const i64 lo = (begin * ax.down - ax.pad) / ax.up - 1;
                const i64 from = lo < 0 ? 0 : lo, to = lo + strip_size < ax.size ? lo + strip_size : ax.size;
                T* out = y + (row * ax.out + begin) * c;
                auto finish = [&] {
                    if (e) activate_pixels(out, out, image, oy * ax.out + begin, end - begin, c, *e);
                };
                if (count == 0 || from >= to) {
                    memset(out, 0, (end - begin) * c * sizeof(T));
                    finish();
                    continue;
                }
                memset(strip, 0, (from - lo) * c * sizeof(T));
                memset(strip + (to - lo) * c, 0, (lo + strip_size - to) * c * sizeof(T));
                const T* at[MAX_TAPS];
                for (i64 k = 0; k < (count < 4 ? 4 : count); k++) at[k] = rows[k < count ? k : 0] + from * c;
                if (separable) {
                    weighted_sum(at, chosen, count, strip + (from - lo) * c, (to - from) * c);
                    horizontal(strip, lo, out, begin, end, c, ax, fx, scratch);
                    finish();
                    continue;
                }
                for (i64 k = 0; k < count; k++) {
                    memcpy(strip + (from - lo) * c, at[k], (to - from) * c * sizeof(T));
                    horizontal(strip, lo, k ? row_sum : out, begin, end, c, ax, f + tap_of[k] * ax.taps, scratch);
                    for (i64 j = 0; k && j < (end - begin) * c; j++) out[j] += row_sum[j];
                }
                finish();
            }
        }
        free(strip);
    }
}

}  // namespace

#define EXPORT(T, NAME)                                                                                              \
    extern "C" void epilogue_##NAME(const T* x, T* y, i64 n, i64 c, i64 pixels, int last, const T* scale,            \
                                    const T* noise, i64 noise_step, const T* b, double slope, double gain,           \
                                    double clamp, int threads) {                                                     \
        epilogue<T>(x, y, n, c, pixels, last, {scale, noise, b, noise_step, T(slope), T(gain), T(clamp)}, threads);  \
    }                                                                                                                \
    extern "C" void gradients_##NAME(const T* dy, const T* y, const T* x, const T* scale, T* dx, T* dscale, T* db,   \
                                     T* dnoise, i64 n, i64 c, i64 pixels, i64 parts, int last, double slope,         \
                                     double gain, double clamp, int threads) {                                       \
        const Gradients<T> g = {dy, y, x, scale, dx, dscale, db, dnoise, T(slope), T(gain), T(clamp)};               \
        if (last) gradients_last(g, n, c, pixels, parts, threads);                                                   \
        else gradients_planes(g, n, c, pixels, threads);                                                             \
    }                                                                                                                \
    extern "C" void upfirdn2d_##NAME(const T* x, T* y, const float* f, int flip, double gain, i64 images, i64 c,     \
                                     i64 h, i64 w, i64 out_h, i64 out_w, i64 fh, i64 fw, i64 up_x, i64 up_y,         \
                                     i64 down_x, i64 down_y, i64 pad_x, i64 pad_y, int threads) {                    \
        upfirdn2d<T>(x, y, f, flip, gain, images, c, {h, out_h, fh, up_y, down_y, pad_y},                            \
                     {w, out_w, fw, up_x, down_x, pad_x}, nullptr, threads);                                         \
    }

EXPORT(float, f32)
EXPORT(double, f64)

// One pass of a filter over channels_last images, and what follows: images [n, h, w, c] → [n, out_h, out_w, c].
extern "C" void fir_epilogue(const float* x, float* y, const float* f, int flip, double fir_gain, i64 n, i64 c, i64 h,
                             i64 w, i64 out_h, i64 out_w, i64 fh, i64 fw, i64 pad_x, i64 pad_y, const float* scale,
                             const float* noise, i64 noise_step, const float* b, double slope, double gain,
                             double clamp, int threads) {
    const Epilogue<float> e = {scale, noise, b, noise_step, float(slope), float(gain), float(clamp)};
    upfirdn2d<float>(x, y, f, flip, fir_gain, n, c, {h, out_h, fh, 1, 1, pad_y}, {w, out_w, fw, 1, 1, pad_x}, &e,
                     threads);
}

extern "C" const char* instructions() { return winograd::INSTRUCTIONS; }
extern "C" i64 winograd_weights_size(i64 o, i64 c) { return 36 * winograd::up_to(o, winograd::PANEL) * c; }
extern "C" void winograd_weights(const float* w, float* u, i64 o, i64 c, i64 o_step, i64 c_step, i64 tap_step,
                                 int threads) {
    winograd::weights<winograd::weight_line>(w, u, o, c, o_step, c_step, tap_step, threads);
}
extern "C" void winograd_convolve(const float* x, const float* u, float* y, i64 n, i64 h, i64 w, i64 c, i64 o,
                                  const float* style, const float* scale, const float* noise, i64 noise_step,
                                  const float* b, double slope, double gain, double clamp, int threads) {
    winograd::convolve({x, u, y, n, h, w, c, o, style, scale, noise, b, noise_step, float(gain), float(gain * slope),
                        clamp < 0 ? __builtin_inff() : float(clamp)}, threads);
}
extern "C" void winograd_up_weights(const float* w, float* u, i64 o, i64 c, i64 o_step, i64 c_step, i64 tap_step,
                                    int threads) {
    winograd::weights<winograd::up::weight_line>(w, u, o, c, o_step, c_step, tap_step, threads);
}

// Whether the filter f [4, 4] is a product of two lines, and so the images y [n, 2 h, 2 w, o] were computed.
extern "C" int winograd_up_convolve(const float* x, const float* u, float* y, i64 n, i64 h, i64 w, i64 c, i64 o,
                                    const float* style, const float* f, double fir_gain, const float* scale,
                                    const float* noise, i64 noise_step, const float* b, double slope, double gain,
                                    double clamp, int threads) {
    float taps[16], fy[4], fx[4];
    for (i64 i = 0; i < 16; i++) taps[i] = float(f[15 - i] * fir_gain);
    if (!factor(taps, 4, 4, fy, fx)) return 0;
    winograd::up::convolve({x, u, y, n, h, w, c, o, style, nullptr, nullptr, nullptr, 0, 0, 0, 0}, fy, fx,
                           {scale, noise, b, noise_step, float(slope), float(gain), float(clamp)}, threads);
    return 1;
}
