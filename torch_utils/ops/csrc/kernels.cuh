// Every kernel by its name. The names are what Python asks for (torch_utils/ops/backend/launch_config.py).
//
// SG_DTYPES may be defined as a shorter list, to compile less.
#pragma once
#include "bias_act.cuh"
#include "upfirdn2d.cuh"

#ifndef SG_DTYPES
#define SG_DTYPES(K) SG_F16(K) SG_BF16(K) SG_F32(K) SG_F64(K)
#endif
// tag, type, channels of a channels_last tile (32 bytes of them: one sector of memory), its columns
#define SG_F16(K) SG_KERNELS_OF(K, f16, Half, 16, 16)
#define SG_BF16(K) SG_KERNELS_OF(K, bf16, BFloat, 16, 16)
#define SG_F32(K) SG_KERNELS_OF(K, f32, float, 8, 32)
#define SG_F64(K) SG_KERNELS_OF(K, f64, double, 4, 64)

// K(name, argument type, element type, function)
#define SG_KERNELS_OF(K, TAG, T, CB, CW)                                                                          \
    SG_BIAS_ACT(K, TAG, T, 0) SG_BIAS_ACT(K, TAG, T, 1) SG_BIAS_ACT(K, TAG, T, 2)                                 \
    K(upfirdn2d_##TAG##_i32, Upfirdn2dParams, T, upfirdn2d_general<T, unsigned>)                                  \
    K(upfirdn2d_##TAG##_i64, Upfirdn2dParams, T, upfirdn2d_general<T, unsigned long long>)                        \
    SG_FIR4(K, TAG, T, 1, 1, 1, 256, 8) SG_FIR4(K, TAG, T, 1, 1, 1, 128, 16) SG_FIR4(K, TAG, T, 1, 1, 1, 32, 32)  \
    SG_FIR4(K, TAG, T, 1, 1, CB, CW, 8)                                                                           \
    SG_FIR4(K, TAG, T, 1, 2, 1, 128, 8) SG_FIR4(K, TAG, T, 1, 2, 1, 32, 16) SG_FIR4(K, TAG, T, 1, 2, CB, CW, 4)   \
    SG_FIR4(K, TAG, T, 2, 1, 1, 128, 16) SG_FIR4(K, TAG, T, 2, 1, 1, 32, 32) SG_FIR4(K, TAG, T, 2, 1, CB, CW, 8)
#define SG_BIAS_ACT(K, TAG, T, ORDER)                                                       \
    K(bias_act##ORDER##_##TAG##_i32, BiasActParams, T, bias_act<T, ORDER, unsigned>)        \
    K(bias_act##ORDER##_##TAG##_i64, BiasActParams, T, bias_act<T, ORDER, unsigned long long>)
#define SG_FIR4(K, TAG, T, UP, DOWN, CB, TW, TH)                             \
    K(fir4_##TAG##_u##UP##d##DOWN##_c##CB##w##TW##h##TH, Upfirdn2dParams, T, \
      upfirdn2d_fir4<Fir4<T, UP, DOWN, CB, TW, TH>>)

namespace sg {
// So many blocks shall fit on a multiprocessor: it bounds the registers, to what needs no spills on any architecture.
template <typename T> __device__ constexpr int blocks_per_sm() { return sizeof(T) == 8 ? 2 : 4; }

#define SG_DEFINE_KERNEL(NAME, PARAMS, T, ...) \
    extern "C" __global__ void __launch_bounds__(THREADS, blocks_per_sm<T>()) NAME(const PARAMS p) { __VA_ARGS__(p); }
SG_DTYPES(SG_DEFINE_KERNEL)
}  // namespace sg
