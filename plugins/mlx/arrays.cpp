#include "arrays.h"

namespace tq::mlx_plugin {

std::string text_of(const mx::Shape& shape) {
    std::string text = "(";
    for (size_t i = 0; i < shape.size(); ++i) text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
    return text + ")";
}

FloatType float_type_of(const mx::array& array, const char* what) {
    if (array.dtype() == mx::float32) return FloatType::kF32;
    if (array.dtype() == mx::float16) return FloatType::kF16;
    if (array.dtype() == mx::bfloat16) return FloatType::kBf16;
    throw std::invalid_argument(std::string(what) + " must be float32, float16 or bfloat16");
}

void check_contiguous(const mx::array& array, const char* what) {
    if (!array.flags().row_contiguous)
        throw std::invalid_argument(std::string(what) + " must be contiguous (mx.contiguous)");
}

void allocate_aligned(mx::array& out) {
    mx::allocator::Data data = mx::allocator::malloc(out.nbytes() + kRecordAlignment);
    const auto begin = reinterpret_cast<uintptr_t>(data.buffer().raw_ptr());
    const auto offset = static_cast<int64_t>((kRecordAlignment - begin % kRecordAlignment) % kRecordAlignment);
    int n_long = 0;  // dimensions with more than one element
    for (mx::ShapeElem n : out.shape()) n_long += n > 1;
    const mx::array::Flags flags{/*contiguous=*/true, /*row_contiguous=*/true, /*col_contiguous=*/n_long <= 1};
    out.set_data(std::move(data), out.size(), out.strides(), flags, offset);
}

PackedTensor packed_tensor(const mx::array& records, const BlockCodec& codec) {
    const int64_t n_stream = records.shape(0), n_blocks = records.shape(1);
    return {&codec, records.data<uint8_t>(), n_stream * n_blocks, n_blocks * kBlockCells, n_stream, nullptr};
}

}  // namespace tq::mlx_plugin
