// Arguments of the kernels: plain data that Python fills in through ctypes (torch_utils/ops/backend/params.py).
//
// Members are ordered by size, so that no compiler pads between them. Strides count elements.
#pragma once

namespace sg {

struct Upfirdn2dParams {
    const void* x;           // [n, channels, h, w]
    const float* f;          // [fh, fw]
    void* y;                 // [n, channels, out_h, out_w]
    long long x_stride[4];   // of n, c, h, w
    long long y_stride[4];
    long long f_stride[2];   // of h, w
    long long outputs;       // number of elements of y
    double gain;
    int n, channels, h, w, out_h, out_w, fh, fw;
    int up_x, up_y, down_x, down_y;
    int pad_x, pad_y;        // before the image; what is after it follows from the size of y
    int flip;                // 1 correlates, 0 convolves
    int channels_last;       // order in which the general kernel walks over y
    int strips;              // columns of tiles
    int channel_groups;      // groups of channels that a tile holds together
    int rows_per_block;      // output rows, a multiple of the tile's height
    int reserved;
};
static_assert(sizeof(Upfirdn2dParams) == 200, "differs from backend/params.py");

struct BiasActParams {
    const void* ref;   // order 0: the input x; orders 1 and 2: the output y, for swish the input
    const void* b;     // [size_b] or null
    const void* dy;    // orders 1 and 2: gradient of the output
    const void* ddx;   // order 2: gradient of the first gradient
    void* out;
    long long numel;
    long long step_b;  // elements from one bias to the next
    long long size_b;
    double alpha, gain;
    double clamp;      // negative: none
    int act;           // 1 to 9, as cuda_idx in bias_act.activation_funcs
    int packed;        // 1: everything is aligned and no pack of elements straddles two biases
};
static_assert(sizeof(BiasActParams) == 96, "differs from backend/params.py");

}  // namespace sg
