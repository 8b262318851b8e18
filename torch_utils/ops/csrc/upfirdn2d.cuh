// Zero-stuffing, padding, FIR filter and decimation of images: y[o] = sum_k x_stuffed[o * down - pad + k] * taps[k].
//
// Two kernels: one for any factors, filter and strides, and one for the 4x4 filter of StyleGAN2 at up 1, down 2 and
// up 2, which keeps a window of the image in shared memory.
#pragma once
#include "common.cuh"
#include "params.cuh"

namespace sg {

// The weight that meets stuffed sample k of the window, gain included.
template <typename A> __device__ inline A tap(const Upfirdn2dParams& p, int ky, int kx) {
    const int row = p.flip ? ky : p.fh - 1 - ky, col = p.flip ? kx : p.fw - 1 - kx;
    return A(p.f[row * p.f_stride[0] + col * p.f_stride[1]]) * A(p.gain);
}

// ---------------------------------------------------------------------------------------------------------------------
// General kernel: one thread, one output at a time

// The samples along one axis that an output takes in, and the tap that the first of them meets.
struct Window {
    int first, last, tap;
};

__device__ inline Window window(int out, int up, int down, int pad, int taps, int size) {
    const int begin = out * down - pad;             // in stuffed samples
    const int phase = begin % up;
    const int skip = phase > 0 ? up - phase : -phase;  // zeros before the first real sample
    const int lowest = (begin + skip) / up;         // exact
    Window w;
    w.first = lowest > 0 ? lowest : 0;
    w.last = begin + taps - 1 < 0 ? -1 : (begin + taps - 1) / up;
    if (w.last > size - 1) w.last = size - 1;
    w.tap = skip + (w.first - lowest) * up;
    return w;
}

template <typename T> __device__ inline Acc<T> filtered(const Upfirdn2dParams& p, int n, int c, int oy, int ox) {
    const Window wy = window(oy, p.up_y, p.down_y, p.pad_y, p.fh, p.h);
    const Window wx = window(ox, p.up_x, p.down_x, p.pad_x, p.fw, p.w);
    const T* image = static_cast<const T*>(p.x) + n * p.x_stride[0] + c * p.x_stride[1];
    Acc<T> sum = 0;
    for (int iy = wy.first, ky = wy.tap; iy <= wy.last; ++iy, ky += p.up_y) {
        const T* row = image + iy * p.x_stride[2];
        for (int ix = wx.first, kx = wx.tap; ix <= wx.last; ++ix, kx += p.up_x)
            sum += read(row + ix * p.x_stride[3]) * tap<Acc<T>>(p, ky, kx);
    }
    return sum;
}

// I is the type of an output's number: 32 bits below 2^31 outputs, else 64.
template <typename T, typename I> __device__ inline void upfirdn2d_general(const Upfirdn2dParams& p) {
    const I outputs = I(p.outputs), stride = I(gridDim.x) * THREADS;
    const I w = I(p.out_w), h = I(p.out_h), channels = I(p.channels);
    for (I i = I(blockIdx.x) * THREADS + threadIdx.x; i < outputs; i += stride) {
        I n, c, oy, ox;  // consecutive threads write consecutive elements
        if (p.channels_last) {
            c = i % channels;
            ox = i / channels % w;
            oy = i / (channels * w) % h;
            n = i / (channels * w * h);
        } else {
            ox = i % w;
            oy = i / w % h;
            c = i / (w * h) % channels;
            n = i / (w * h * channels);
        }
        write(static_cast<T*>(p.y) + i, filtered<T>(p, int(n), int(c), int(oy), int(ox)));
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// 4x4 filter: a block goes down a strip of TW columns, TH rows at a time
//
// The rows of the image that a step needs stand in shared memory. Successive steps share all but STEP of them, so the
// array is a ring: each step overwrites the rows that are used up. A strip therefore reads its rows once, and only the
// few columns beside it twice. CB channels that lie side by side in memory (channels_last) are treated together; an
// image in planes has CB = 1. Thread -> lane = (column, channel), and band = group of rows.

__device__ constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

// Pitch of one half of a row whose even and odd columns are kept apart: both halves are then read and written without
// two threads of a warp meeting in a bank.
__device__ constexpr int half_pitch(int columns, int channels) {
    int half = ceil_div(columns, 2);
    while (half * channels % 32 != 16) ++half;
    return half;
}

template <typename Type, int UP_, int DOWN_, int CB_, int TW_, int TH_> struct Fir4 {
    using T = Type;
    using A = Acc<T>;
    static constexpr int UP = UP_, DOWN = DOWN_, CB = CB_, TW = TW_, TH = TH_;
    static constexpr int BANDS = THREADS / (TW * CB);
    static constexpr int RUN = TH / BANDS;  // outputs of a thread per step, one above the other
    static constexpr int IN_W = UP == 2 ? TW / 2 + 2 : (TW - 1) * DOWN + 4;
    static constexpr int IN_H = UP == 2 ? TH / 2 + 2 : (TH - 1) * DOWN + 4;
    static constexpr int STEP = TH * DOWN / UP;
    static constexpr int HALF = DOWN == 2 ? half_pitch(IN_W, CB) : 0;
    static constexpr int PITCH = (DOWN == 2 ? 2 * HALF : IN_W) * CB;
    using Ring = A[IN_H * PITCH];  // passed by reference, so that a host compiler can check every index
    static_assert(UP * DOWN <= 2, "up 1, up 2 or down 2");
    static_assert(BANDS * TW * CB == THREADS && RUN * BANDS == TH, "the threads tile the step");
    static_assert(UP == 1 || (RUN % 2 == 0 && TW % 2 == 0), "rows and columns come in pairs of phases");

    // Place of a column in a row of the ring, in units of CB elements.
    static __device__ inline int place(int column) {
        return DOWN == 2 ? (column & 1) * HALF + (column >> 1) : column;
    }

    // Where row r of the window begins in the ring, whose oldest row is in slot `base`.
    static __device__ inline int row(int base, int r) {
        const int slot = base + r;
        return (slot < IN_H ? slot : slot - IN_H) * PITCH;
    }
};

// Which part of the output a block does.
struct Strip {
    int x0;       // first output column
    int channel;  // first channel
    int left;     // channels from there on
};

template <class S> __device__ inline Strip find_strip(const Upfirdn2dParams& p) {
    const int unit = int(blockIdx.x);
    Strip s;
    if (S::CB == 1) {
        s.x0 = unit % p.strips * S::TW;
        s.channel = unit / p.strips;
    } else {  // neighbouring blocks share lines of memory
        s.x0 = unit / p.channel_groups * S::TW;
        s.channel = unit % p.channel_groups * S::CB;
    }
    s.left = p.channels - s.channel;
    return s;
}

// Reads rows `first` to IN_H - 1 of the window whose corner is (y0, x0) into the ring; zeros outside the image. A warp
// takes a row, of which it treats AT_ONCE pixels side by side.
template <class S>
__device__ inline void fill(const Upfirdn2dParams& p, const typename S::T* image, const Strip& strip,
                            typename S::Ring& ring, int base, int y0, int x0, int first) {
    constexpr int AT_ONCE = 32 / S::CB;
    const int channel = threadIdx.x % S::CB, begin = threadIdx.x % 32 / S::CB;
    const long long pixel = p.x_stride[3];
    for (int r = first + threadIdx.x / 32; r < S::IN_H; r += THREADS / 32) {
        const int y = y0 + r;
        const bool row_inside = y >= 0 && y < p.h && channel < strip.left;
        const typename S::T* source = image + y * p.x_stride[2] + channel * p.x_stride[1] + (x0 + begin) * pixel;
        const int target = S::row(base, r) + channel;
#pragma unroll 4
        for (int column = begin; column < S::IN_W; column += AT_ONCE, source += AT_ONCE * pixel) {
            const bool inside = row_inside && x0 + column >= 0 && x0 + column < p.w;
            ring[target + S::place(column) * S::CB] = inside ? read(source) : typename S::A(0);
        }
    }
}

// Adds up RUN outputs, one above the other; every row of the window is read once. Up 1.
template <class S, typename A>
__device__ inline void gather(const typename S::Ring& ring, int base, int column, int channel, int band, const A (&taps)[16],
                              A (&sum)[S::RUN]) {
    constexpr int ROWS = (S::RUN - 1) * S::DOWN + 4;
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
        const int row = S::row(base, band * S::RUN * S::DOWN + i) + channel;
        A v[4];
#pragma unroll
        for (int k = 0; k < 4; ++k) v[k] = ring[row + S::place(column * S::DOWN + k) * S::CB];
#pragma unroll
        for (int j = 0; j < S::RUN; ++j) {
            const int ky = i - j * S::DOWN;
            if (ky < 0 || ky > 3) continue;
#pragma unroll
            for (int k = 0; k < 4; ++k) sum[j] += v[k] * taps[ky * 4 + k];
        }
    }
}

// The same at up 2, where an output meets every other tap of the filter along each axis: which, depends on the phase of
// its row (for the even rows of the tile `odd`) and of its column (already chosen in `taps`).
// taps[phase of the row][first or second sample down][first or second sample across]
template <class S, typename A>
__device__ inline void gather_up(const typename S::Ring& ring, int base, int column, int channel, int band, bool odd,
                                 const A (&taps)[2][2][2], A (&sum)[S::RUN]) {
    A top[2], mid[2], low[2];
    auto load = [&](int r, A(&v)[2]) {
        const int place = S::row(base, band * S::RUN / 2 + r) + column * S::CB + channel;
        v[0] = ring[place];
        v[1] = ring[place + S::CB];
    };
    auto dot = [](const A(&u)[2], const A(&v)[2], const A(&w)[2][2]) {
        return u[0] * w[0][0] + u[1] * w[0][1] + v[0] * w[1][0] + v[1] * w[1][1];
    };
    load(0, top);
    load(1, mid);
#pragma unroll
    for (int m = 0; m < S::RUN / 2; ++m) {
        load(m + 2, low);
        sum[2 * m] = odd ? dot(mid, low, taps[0]) : dot(top, mid, taps[0]);
        sum[2 * m + 1] = dot(mid, low, taps[1]);
        top[0] = mid[0], top[1] = mid[1];
        mid[0] = low[0], mid[1] = low[1];
    }
}

template <class S> __device__ inline void upfirdn2d_fir4(const Upfirdn2dParams& p) {
    using T = typename S::T;
    using A = typename S::A;
    __shared__ typename S::Ring ring;
    __shared__ A filter[16];

    const Strip strip = find_strip<S>(p);
    const int lane = threadIdx.x % (S::TW * S::CB), band = threadIdx.x / (S::TW * S::CB);
    const int channel = lane % S::CB, ox = strip.x0 + lane / S::CB;
    const bool mine = ox < p.out_w && channel < strip.left;
    const int y_begin = int(blockIdx.y) * p.rows_per_block;
    const int y_end = y_begin + p.rows_per_block < p.out_h ? y_begin + p.rows_per_block : p.out_h;

    if (threadIdx.x < 16) filter[threadIdx.x] = tap<A>(p, threadIdx.x / 4, threadIdx.x % 4);
    __syncthreads();
    // Corner of the window and, at up 2, the phases: shifting right rounds down for negative numbers too.
    const int shift = S::UP - 1;
    const int corner_x = (strip.x0 * S::DOWN - p.pad_x) >> shift, corner_y = (y_begin * S::DOWN - p.pad_y) >> shift;
    const int phase_x = (ox - p.pad_x) & 1, phase_y = p.pad_y & 1;
    const int column = S::UP == 2 ? ((ox - p.pad_x + phase_x) >> 1) - corner_x : lane / S::CB;
    A taps[16], taps_up[2][2][2];
#pragma unroll
    for (int k = 0; k < 16; ++k) taps[k] = filter[k];
#pragma unroll
    for (int k = 0; k < 8; ++k) {
        const int row_phase = k / 4 == 0 ? phase_y : 1 - phase_y;
        taps_up[k / 4][k / 2 % 2][k % 2] = filter[(row_phase + k / 2 % 2 * 2) * 4 + phase_x + k % 2 * 2];
    }

    for (int n = int(blockIdx.z); n < p.n; n += int(gridDim.z)) {
        const T* image = static_cast<const T*>(p.x) + n * p.x_stride[0] + strip.channel * p.x_stride[1];
        T* target = static_cast<T*>(p.y) + n * p.y_stride[0] + (strip.channel + channel) * p.y_stride[1];
        int base = 0;    // slot of the window's first row
        int known = 0;   // rows of the window that an earlier step has read
        int corner = corner_y;
        for (int y = y_begin; y < y_end; y += S::TH) {
            __syncthreads();  // nobody needs the rows that are overwritten
            fill<S>(p, image, strip, ring, base, corner, corner_x, known);
            __syncthreads();
            A sum[S::RUN] = {};
            if constexpr (S::UP == 2)
                gather_up<S>(ring, base, column, channel, band, phase_y != 0, taps_up, sum);
            else
                gather<S>(ring, base, column, channel, band, taps, sum);
#pragma unroll
            for (int j = 0; j < S::RUN; ++j) {
                const int oy = y + band * S::RUN + j;
                if (mine && oy < y_end) write(target + oy * p.y_stride[2] + ox * p.y_stride[3], sum[j]);
            }
            base = (base + S::STEP) % S::IN_H;
            known = S::IN_H - S::STEP;
            corner += S::STEP;
        }
    }
}

}  // namespace sg
