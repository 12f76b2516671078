#include "calibrate/output_weight.h"

#include <fstream>
#include <memory>

#include <fmt/format.h>
#include <ggml.h>
#include <gguf.h>

namespace tq::tool {
namespace {

using Gguf = std::unique_ptr<gguf_context, decltype(&gguf_free)>;

constexpr int64_t kMaxColumns = 1 << 20;

}  // namespace

Result<std::vector<double>> output_column_energies(const std::string& file, int layer, int64_t n_columns) {
    const Gguf gguf(gguf_init_from_file(file.c_str(), {/*no_alloc=*/true, /*ctx=*/nullptr}), gguf_free);
    if (!gguf) return Status(Error::kInvalidArgument, file + ": not a readable GGUF file");
    const int64_t id = gguf_find_tensor(gguf.get(), fmt::format("blk.{}.attn_output.weight", layer).c_str());
    if (id < 0 || n_columns <= 0 || n_columns > kMaxColumns) return std::vector<double>();
    const ggml_type type = gguf_get_tensor_type(gguf.get(), id);
    const ggml_to_float_t to_float = ggml_get_type_traits(type)->to_float;
    const size_t bytes = gguf_get_tensor_size(gguf.get(), id);
    if ((type != GGML_TYPE_F32 && !to_float) || n_columns % ggml_blck_size(type) != 0) return std::vector<double>();
    const size_t row_bytes = ggml_row_size(type, n_columns);
    if (bytes % row_bytes != 0) return std::vector<double>();

    std::ifstream in(file, std::ios::binary);
    in.seekg(static_cast<std::streamoff>(gguf_get_data_offset(gguf.get()) + gguf_get_tensor_offset(gguf.get(), id)));
    std::vector<char> row(row_bytes);
    std::vector<float> values(static_cast<size_t>(n_columns));
    std::vector<double> energies(static_cast<size_t>(n_columns));
    for (size_t at = 0; at < bytes; at += row_bytes) {
        if (!in.read(row.data(), static_cast<std::streamsize>(row_bytes)))
            return Status(Error::kInvalidArgument, file + ": truncated");
        if (type == GGML_TYPE_F32)
            std::copy_n(reinterpret_cast<const float*>(row.data()), n_columns, values.data());
        else
            to_float(row.data(), values.data(), n_columns);
        for (size_t i = 0; i < values.size(); ++i) energies[i] += double{values[i]} * values[i];
    }
    return energies;
}

}  // namespace tq::tool
