#include "inspect/inspect.h"

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "bench/machine.h"
#include "fail.h"
#include "file.h"
#include "inspect/statistics.h"
#include "turboquant/format/row_format.h"

namespace tq::tool {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kMinTokens = 32, kMaxTokens = 1 << 16;

constexpr const char* kDumpFooter =
    "Writes k_l<layer>.npy, v_l<layer>.npy (tokens x values a row) and q_l<layer>.npy (tokens x heads x head size), "
    "f32, as\n"
    "NumPy reads them: keys and queries after RoPE, as attention sees them.\n"
    "Exit status: 0; 1 if something can't be read, written or computed; 2 for wrong usage.";
constexpr const char* kDistortionFooter =
    "mean: the share of the energy that is the mean over the tokens. channel: rms of the largest channel, relative.\n"
    "dims: dimensions that the energy is spread over. SNR in dB; behind it the distance to the rate-distortion bound "
    "of\n"
    "Gaussian values at those bits. logit: rms of the error in q k / sqrt(d).\n"
    "Exit status: 0; 1 if something can't be read or computed; 2 for wrong usage.";

void add_options(CLI::App* app, InspectOptions& o) {
    app->add_option("--model,-m", o.model, "GGUF file of the model")->type_name("FILE")->required();
    app->add_option("--text,-f", o.text, "Text file")->type_name("FILE")->required();
    app->add_option("--tokens,-n", o.n_tokens, "Tokens of the text (default: 1024)")
        ->type_name("N")
        ->check(CLI::Range(kMinTokens, kMaxTokens));
    app->add_option("--threads,-t", o.n_threads, "Threads (default: every core)")
        ->type_name("N")
        ->check(CLI::Range(0, 512));
}

Result<Captured> capture_text(const InspectOptions& options) {
    const Result<std::string> text = read_file(options.text);
    if (!text.ok()) return text.status();
    HostOptions host_options;
    host_options.model = options.model;
    host_options.n_threads = options.n_threads > 0 ? options.n_threads : usable_cores();
    if (Status status = Host::check_survival(host_options); !status.ok()) return status;
    Result<Host> host = Host::create(host_options);
    if (!host.ok()) return host.status();
    Tokens tokens = host->tokenize(text.value());
    if (static_cast<int>(tokens.size()) < kMinTokens) {
        return Status(Error::kInvalidArgument, fmt::format("{}: has {} tokens; at least {} are needed", options.text,
                                                           tokens.size(), kMinTokens));
    }
    if (static_cast<int>(tokens.size()) > options.n_tokens) tokens.resize(static_cast<size_t>(options.n_tokens));
    return capture(host.value(), tokens);
}

// ---- dump

Status write_npy(const std::string& path, const std::vector<float>& values, const std::vector<int64_t>& shape) {
    std::string sizes;
    for (int64_t size : shape) sizes += fmt::format("{}, ", size);
    std::string header = fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}), }}", sizes);
    header.resize((header.size() + 1 + 10 + 63) / 64 * 64 - 10 - 1, ' ');  // the data begin at a multiple of 64
    header += '\n';
    std::ofstream out(path, std::ios::binary);
    out.write("\x93NUMPY\x01\x00", 8);
    out.put(static_cast<char>(header.size() % 256)).put(static_cast<char>(header.size() / 256));
    out << header;
    out.write(reinterpret_cast<const char*>(values.data()),
              static_cast<std::streamsize>(values.size() * sizeof(float)));
    out.flush();
    return out ? Status() : Status(Error::kInvalidArgument, path + ": can't be written");
}

Status dump_layer(const std::string& folder, int index, const CapturedLayer& layer) {
    const auto rows = [](const std::vector<float>& values, int64_t width) {
        return static_cast<int64_t>(values.size()) / width;
    };
    const auto path = [&](const char* what) { return fmt::format("{}/{}_l{}.npy", folder, what, index); };
    const int64_t n = rows(layer.keys, layer.n_embd_k);
    if (Status s = write_npy(path("k"), layer.keys, {n, layer.n_embd_k}); !s.ok()) return s;
    if (Status s = write_npy(path("v"), layer.values, {rows(layer.values, layer.n_embd_v), layer.n_embd_v}); !s.ok())
        return s;
    const int64_t width = int64_t{layer.n_head} * layer.head_dim_k;
    return write_npy(path("q"), layer.queries, {rows(layer.queries, width), layer.n_head, layer.head_dim_k});
}

// ---- distortion

struct SideReport {
    RowStatistics rows;
    std::vector<CodecDistortion> codecs;  // one for each preset
};

struct LayerReport {
    int layer = 0;
    SideReport keys, values;
};

Result<SideReport> side_report(const CapturedLayer& layer, Side side, const std::vector<Preset>& presets) {
    SideReport report{row_statistics(layer, side), {}};
    for (const Preset& preset : presets) {
        const Result<CodecDistortion> distortion = codec_distortion(layer, side, preset);
        if (!distortion.ok()) return distortion.status();
        report.codecs.push_back(distortion.value());
    }
    return report;
}

Result<std::vector<LayerReport>> layer_reports(const Captured& captured, const std::vector<Preset>& presets) {
    std::vector<LayerReport> reports;
    for (const auto& [index, layer] : captured) {
        const Result<SideReport> keys = side_report(layer, Side::kKey, presets);
        if (!keys.ok()) return keys.status();
        const Result<SideReport> values = side_report(layer, Side::kValue, presets);
        if (!values.ok()) return values.status();
        reports.push_back({index, keys.value(), values.value()});
    }
    return reports;
}

double snr(const CodecDistortion& d) {
    return -10 * std::log10(std::max(d.relative, 1e-30));
}

// Returns the signal-to-noise ratio in dB that Gaussian values allow: 6.02 dB a bit.
double bound(Side side, const Preset& preset) {
    return 20 * std::log10(2.0) * effective_bits(preset, side);
}

void print_side(int layer, Side side, const SideReport& r, const std::vector<Preset>& presets) {
    fmt::print("{:>5} {} {:>9.4f} {:>6.3f} {:>8.2f} {:>6.1f}", layer, side == Side::kKey ? 'K' : 'V', r.rows.rms,
               r.rows.mean_share, r.rows.largest_channel, r.rows.dimensions);
    for (size_t i = 0; i < presets.size(); ++i) {
        fmt::print("  {:>6.2f} {:>6.2f}", snr(r.codecs[i]), snr(r.codecs[i]) - bound(side, presets[i]));
        if (side == Side::kKey)
            fmt::print(" {:>6.3f}", r.codecs[i].logit_rms);
        else
            fmt::print(" {:>6}", "");
    }
    fmt::print("\n");
}

void print_reports(const std::vector<LayerReport>& reports, const std::vector<Preset>& presets) {
    fmt::print("{:>5}   {:>9} {:>6} {:>8} {:>6}", "layer", "rms", "mean", "channel", "dims");
    for (const Preset& preset : presets) fmt::print("  {:>6} {:>6} {:>6}", preset.name(), "bound", "logit");
    fmt::print("\n");
    for (const LayerReport& r : reports) {
        print_side(r.layer, Side::kKey, r.keys, presets);
        print_side(r.layer, Side::kValue, r.values, presets);
    }
}

Json to_json(Side side, const SideReport& r, const std::vector<Preset>& presets) {
    Json codecs = Json::array();
    for (size_t i = 0; i < presets.size(); ++i) {
        codecs.push_back({{"preset", presets[i].name()},
                          {"description", presets[i].describe()},
                          {"bits_per_value", effective_bits(presets[i], side)},
                          {"relative_error", r.codecs[i].relative},
                          {"snr_db", snr(r.codecs[i])},
                          {"bound_db", bound(side, presets[i])},
                          {"logit_error_rms", r.codecs[i].logit_rms}});
    }
    return {{"rms", r.rows.rms},
            {"mean_share", r.rows.mean_share},
            {"largest_channel", r.rows.largest_channel},
            {"dimensions", r.rows.dimensions},
            {"codecs", std::move(codecs)}};
}

}  // namespace

void add_inspect_commands(CLI::App& app, InspectCommands& c) {
    c.dump = app.add_subcommand("dump", "A model's keys, values and queries on a text, for NumPy");
    add_options(c.dump, c.options);
    c.dump->add_option("--out,-o", c.options.out, "Folder to write to")->type_name("DIR")->required();
    c.dump->footer(kDumpFooter);
    c.distortion = app.add_subcommand("distortion", "A model's keys and values, and what presets do to them, by layer");
    add_options(c.distortion, c.options);
    c.distortion
        ->add_option("--preset,-p", c.options.presets,
                     "Presets (default: k4cv4,k4ctv4t,k3ctv3t, the codes of fast, balanced and small)")
        ->type_name("P ...")
        ->delimiter(',')
        ->allow_extra_args(false);
    c.distortion->add_flag("--json", c.options.json, "Print JSON");
    c.distortion->footer(kDistortionFooter);
}

int run_dump(const InspectOptions& options) {
    std::error_code error;
    std::filesystem::create_directories(options.out, error);
    if (error) return fail(1, options.out + ": " + error.message());
    const Result<Captured> captured = capture_text(options);
    if (!captured.ok()) return fail(1, captured.status().message());
    for (const auto& [index, layer] : captured.value()) {
        if (Status status = dump_layer(options.out, index, layer); !status.ok()) return fail(1, status.message());
    }
    return 0;
}

int run_distortion(const InspectOptions& options) {
    std::vector<Preset> presets;
    for (const std::string& name : options.presets) {
        const Result<Preset> preset = Preset::parse(name);
        if (!preset.ok()) return fail(2, "--preset: " + preset.status().message());
        presets.push_back(preset.value());
    }
    const Result<Captured> captured = capture_text(options);
    if (!captured.ok()) return fail(1, captured.status().message());
    const Result<std::vector<LayerReport>> reports = layer_reports(captured.value(), presets);
    if (!reports.ok()) return fail(1, reports.status().message());
    if (!options.json) {
        print_reports(reports.value(), presets);
        return 0;
    }
    Json layers = Json::array();
    for (const LayerReport& r : reports.value()) {
        layers.push_back({{"layer", r.layer},
                          {"keys", to_json(Side::kKey, r.keys, presets)},
                          {"values", to_json(Side::kValue, r.values, presets)}});
    }
    fmt::print("{}\n", Json{{"version", TQ_VERSION}, {"model", options.model}, {"layers", std::move(layers)}}.dump(
                           2, ' ', false, Json::error_handler_t::replace));
    return 0;
}

}  // namespace tq::tool
