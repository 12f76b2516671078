// Scaled dot-product attention over a packed cache, in double precision, as the formula reads. Slow; what kernels are
// tested against. softmax(scale * q K^T + mask) V on the decoded, still rotated rows: <q, k> = <R q, R k>, and R^T
// undoes V's rotation.
#pragma once

#include "turboquant/attention/params.h"

namespace tq {

void attention_reference(const AttentionShape& shape, const AttentionInputs& inputs);

}  // namespace tq
