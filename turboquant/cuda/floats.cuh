// Elements of rows that come from outside or go there.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "turboquant/base/float_type.h"

namespace tq::cuda {

__device__ inline float load_float(const void* row, FloatType type, int i) {
    if (type == FloatType::kF32) return static_cast<const float*>(row)[i];
    if (type == FloatType::kF16) return __half2float(static_cast<const __half*>(row)[i]);
    return __bfloat162float(static_cast<const __nv_bfloat16*>(row)[i]);
}

__device__ inline void store_float(void* row, FloatType type, int i, float x) {
    if (type == FloatType::kF32)
        static_cast<float*>(row)[i] = x;
    else if (type == FloatType::kF16)
        static_cast<__half*>(row)[i] = __float2half_rn(x);
    else
        static_cast<__nv_bfloat16*>(row)[i] = __float2bfloat16_rn(x);
}

}  // namespace tq::cuda
