// The extension module turboquant_cpp.mlx._ext.
//
// Arrays cross as plain objects: MLX's own type casters work only with the very version of nanobind's internals that
// this MLX was built with, and it changes with MLX's patch releases. nb::inst_ptr reads the array inside an object of
// mlx.core.array whatever that version; results are written into arrays that the caller has made (mx.array(0)).
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include <mlx/version.h>
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "append.h"
#include "attend.h"
#include "decode.h"
#include "turboquant/format/fingerprint.h"
#include "workers.h"

namespace nb = nanobind;

namespace tq::mlx_plugin {
namespace {

mx::array& array_of(nb::handle object) {
    static const nb::object array_type = nb::module_::import_("mlx.core").attr("array");
    if (!object.type().is(array_type)) throw nb::type_error("an mlx.core.array is needed");
    return *nb::inst_ptr<mx::array>(object);
}

std::optional<mx::array> optional_array(nb::handle object) {
    if (object.is_none()) return {};
    return array_of(object);
}

// What Python holds. The nodes of a graph get the pointer inside: a shared pointer that nanobind makes from a Python
// object takes the interpreter's lock when it goes, and a node may go on a stream's thread while the interpreter waits
// for it.
struct Codec {
    LayerCodecPtr layer;
};

Side side_of(const std::string& name) {
    if (name == "keys") return Side::kKey;
    if (name == "values") return Side::kValue;
    throw std::invalid_argument("side '" + name + "'; allowed: keys, values");
}

Codec make_codec(const std::string& presets, int layer, int n_head_kv, int head_dim_k, int head_dim_v,
                 const std::vector<float>& key_scales, const std::vector<float>& value_scales) {
    auto codec = LayerCodec::create(presets, layer, {n_head_kv, head_dim_k, head_dim_v}, key_scales, value_scales);
    return {value_of(codec)};
}

std::string fingerprint_of(const Codec& codec, const std::string& side) {
    char text[17];
    std::snprintf(text, sizeof text, "%016llx",
                  static_cast<unsigned long long>(codec.layer->side(side_of(side)).fingerprint()));
    return text;
}

using RowsOfStream = std::tuple<int64_t, int64_t>;            // cell, n
using CellsOfStream = std::tuple<int64_t, int64_t, int64_t>;  // n_kv, n_tokens, first_exact

void bind_append(const Codec& codec, const std::string& side, const std::vector<RowsOfStream>& streams,
                 int64_t n_blocks, bool in_place, nb::handle records, nb::handle rows, nb::handle exact,
                 nb::handle out_records, nb::handle out_exact) {
    AppendCall call{side_of(side), {}, n_blocks, in_place};
    for (const auto& [cell, n] : streams) call.streams.push_back({cell, n});
    Appended appended = append(codec.layer, call, array_of(records), array_of(rows), optional_array(exact));
    array_of(out_records) = std::move(appended.records);
    if (appended.exact) array_of(out_exact) = std::move(*appended.exact);
}

std::optional<ExactSide> exact_side(nb::handle before, nb::handle tokens) {
    if (before.is_none()) return {};
    return ExactSide{array_of(before), array_of(tokens)};
}

void bind_attend(const Codec& codec, const std::vector<CellsOfStream>& streams, float scale, float softcap, bool causal,
                 int64_t window, nb::handle q, nb::handle keys, nb::handle values, nb::handle mask, nb::handle sinks,
                 nb::handle keys_before, nb::handle keys_tokens, nb::handle values_before, nb::handle values_tokens,
                 nb::handle out) {
    AttendCall call{{}, scale, softcap, causal, window};
    for (const auto& [n_kv, n_tokens, first_exact] : streams) call.streams.push_back({n_kv, n_tokens, first_exact});
    array_of(out) = attend(codec.layer, call,
                           {array_of(q), array_of(keys), array_of(values), optional_array(mask), optional_array(sinks),
                            exact_side(keys_before, keys_tokens), exact_side(values_before, values_tokens)});
}

// like: an array of the type that the rows shall have.
void bind_decode(const Codec& codec, const std::string& side, int64_t n, const std::vector<int64_t>& length,
                 const std::vector<int64_t>& first_exact, nb::handle records, nb::handle exact, nb::handle like,
                 nb::handle out) {
    array_of(out) = decode(codec.layer, {side_of(side), n, length, first_exact}, array_of(records),
                           array_of(like).dtype(), optional_array(exact));
}

std::string title_of(const std::string& presets) {
    auto parsed = LayerPresets::parse(presets);
    return value_of(parsed).title();
}

}  // namespace

NB_MODULE(_ext, m) {
    m.attr("built_for_mlx") = MLX_VERSION_NUMERIC;
    m.attr("block_cells") = kBlockCells;
    m.attr("format_version") = kFormatVersion;
    m.def("n_workers", &n_workers);
    m.def("title", &title_of);

    nb::class_<Codec>(m, "LayerCodec")
        .def_prop_ro("preset", [](const Codec& c) { return c.layer->preset().name(); })
        .def_prop_ro("centered", [](const Codec& c) { return c.layer->side(Side::kKey).format().centered(); })
        .def_prop_ro("n_sink", [](const Codec& c) { return c.layer->exact().n_sink; })
        .def_prop_ro("n_kept", [](const Codec& c) { return c.layer->exact().n_kept(); })
        .def_prop_ro("n_slots", [](const Codec& c) { return c.layer->exact().n_slots(); })
        .def_prop_ro("n_head_kv", [](const Codec& c) { return c.layer->shape().n_head_kv; })
        .def_prop_ro("head_dim_k", [](const Codec& c) { return c.layer->shape().head_dim_k; })
        .def_prop_ro("head_dim_v", [](const Codec& c) { return c.layer->shape().head_dim_v; })
        .def_prop_ro("effective_bits", [](const Codec& c) { return c.layer->effective_bits(); })
        .def_prop_ro("isa", [](const Codec& c) { return isa_name(c.layer->engine().isa); })
        .def("unsupported_reason",
             [](const Codec& c, int n_head, bool has_mask) { return unsupported_reason(*c.layer, n_head, has_mask); })
        .def("block_bytes", [](const Codec& c,
                               const std::string& side) { return c.layer->side(side_of(side)).format().block_bytes(); })
        .def("fingerprint", &fingerprint_of);
    m.def("make_codec", &make_codec);

    using A = nb::arg;
    m.def("append", &bind_append, A("codec"), A("side"), A("streams"), A("n_blocks"), A("in_place"), A("records"),
          A("rows"), A("exact").none(), A("out_records"), A("out_exact").none());
    m.def("attend", &bind_attend, A("codec"), A("streams"), A("scale"), A("softcap"), A("causal"), A("window"), A("q"),
          A("keys"), A("values"), A("mask").none(), A("sinks").none(), A("keys_before").none(), A("keys_tokens").none(),
          A("values_before").none(), A("values_tokens").none(), A("out"));
    m.def("decode", &bind_decode, A("codec"), A("side"), A("n"), A("length"), A("first_exact"), A("records"),
          A("exact").none(), A("like"), A("out"));
}

}  // namespace tq::mlx_plugin
