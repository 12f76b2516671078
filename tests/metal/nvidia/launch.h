// What a kernel is given on an NVIDIA GPU; run.cpp is the host's side.
#pragma once

#include "nvidia/buffers.h"

namespace msl {

struct inputs {
    uint at[MSL_INPUTS][3];

    inputs() : at{} {
        const uint group[3] = {uint(__nvvm_read_ptx_sreg_ctaid_x()), uint(__nvvm_read_ptx_sreg_ctaid_y()),
                               uint(__nvvm_read_ptx_sreg_ctaid_z())};
        for (int i = 0; i < 3; ++i) at[MSL_THREADGROUP_POSITION_IN_GRID][i] = group[i];
        at[MSL_THREAD_INDEX_IN_SIMDGROUP][0] = uint(msl_lane());
        at[MSL_SIMDGROUP_INDEX_IN_THREADGROUP][0] = uint(__nvvm_read_ptx_sreg_tid_x()) / kMslSimdWidth;
    }
};

}  // namespace msl
