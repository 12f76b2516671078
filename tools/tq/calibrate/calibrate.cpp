#include "calibrate/calibrate.h"

#include <cstdio>
#include <filesystem>
#include <fstream>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "bench/machine.h"
#include "calibrate/calibration_file.h"
#include "calibrate/energies.h"
#include "calibrate/output_weight.h"
#include "fail.h"
#include "file.h"
#include "parallel.h"
#include "turboquant/format/channel_scales.h"

namespace tq::tool {
namespace {

constexpr int kMinContext = 2 * kBlockCells, kMaxContext = 1 << 16, kMaxTokens = 1 << 24;

constexpr const char* kFooter =
    "Keys, values and queries of the model are measured on the text; each channel of the cache gets a scale that makes "
    "the\n"
    "codec's error cost least. TURBOQUANT_CALIBRATION=FILE makes the plugin use them, tq eval --calibration FILE "
    "measures what\n"
    "they are worth. The text should be like what the model will read, and other than what it is evaluated on.\n"
    "Exit status: 0; 1 if something can't be read, written or computed; 2 for wrong usage.";

Result<Energies> measure(Host& host, const Tokens& tokens, int n_ctx, int n_threads) {
    Energies energies;
    const int n_chunks = static_cast<int>(tokens.size()) / n_ctx;
    for (int chunk = 0; chunk < n_chunks; ++chunk) {
        fmt::print(stderr, "tokens {} to {} of {}\n", chunk * n_ctx, (chunk + 1) * n_ctx, n_chunks * n_ctx);
        const Result<Captured> captured =
            capture(host, Tokens(tokens.begin() + chunk * n_ctx, tokens.begin() + (chunk + 1) * n_ctx));
        if (!captured.ok()) return captured.status();
        add(captured.value(), n_threads, energies);
    }
    return energies;
}

// Returns for each KV head what its values' channels weigh in the output, summed over its query heads. Empty if
// unknown.
Result<std::vector<double>> value_weights(const std::string& model, int index, const LayerEnergies& layer) {
    const size_t d = static_cast<size_t>(layer.head_dim_v), n_embd = layer.values.size();
    const auto n_head = static_cast<size_t>(layer.n_head);
    const Result<std::vector<double>> columns = output_column_energies(model, index, static_cast<int64_t>(n_head * d));
    if (!columns.ok() || columns->empty()) return columns;
    const size_t group = n_head / (n_embd / d);
    std::vector<double> weights(n_embd);
    for (size_t i = 0; i < columns->size(); ++i) weights[i / d / group * d + i % d] += columns.value()[i];
    return weights;
}

std::vector<float> scales_of_heads(const std::vector<double>& energy, const std::vector<double>& weight, int head_dim) {
    std::vector<float> scales;
    const auto d = static_cast<size_t>(head_dim);
    for (size_t at = 0; at < energy.size(); at += d) {
        const std::vector<float> head =
            balanced_scales(std::span(energy).subspan(at, d), std::span(weight).subspan(at, d));
        scales.insert(scales.end(), head.begin(), head.end());
    }
    return scales;
}

void add_layer(CalibrationFile& file, int index, const LayerEnergies& layer, const std::vector<double>& value_weights) {
    const auto add = [&](Side side, bool centered, std::vector<float> scales) {
        file.tensors[channel_scales_name(index, side, centered)] = std::move(scales);
    };
    add(Side::kKey, false, scales_of_heads(layer.keys, layer.queries, layer.head_dim_k));
    add(Side::kKey, true, scales_of_heads(layer.centered_keys, layer.queries, layer.head_dim_k));
    add(Side::kValue, false,
        value_weights.empty() ? std::vector<float>(layer.values.size(), 1.0f)
                              : scales_of_heads(layer.values, value_weights, layer.head_dim_v));
}

// Counts layers whose output projection is unknown. The model's weights are read on all threads, a layer each.
Result<int> add_layers(CalibrationFile& file, const std::string& model, const Energies& energies, int n_threads) {
    const std::vector<std::pair<int, LayerEnergies>> layers(energies.begin(), energies.end());
    std::vector<Result<std::vector<double>>> weights(layers.size(), std::vector<double>());
    parallel_for(layers.size(), n_threads,
                 [&](size_t i) { weights[i] = value_weights(model, layers[i].first, layers[i].second); });
    int n_unknown = 0;
    for (size_t i = 0; i < layers.size(); ++i) {
        if (!weights[i].ok()) return weights[i].status();
        n_unknown += weights[i]->empty();
        add_layer(file, layers[i].first, layers[i].second, weights[i].value());
    }
    return n_unknown;
}

// Before the work is done, not after it.
Status check_writable(const std::string& file) {
    std::error_code ignored;
    const bool existed = std::filesystem::exists(file, ignored);
    if (!std::ofstream(file, std::ios::app)) return Status(Error::kInvalidArgument, file + ": can't be written");
    if (!existed) std::filesystem::remove(file, ignored);
    return {};
}

Status calibrate(const CalibrateOptions& options) {
    if (Status status = check_writable(options.out); !status.ok()) return status;
    const Result<std::string> text = read_file(options.text);
    if (!text.ok()) return text.status();
    const int n_threads = options.n_threads > 0 ? options.n_threads : usable_cores();
    HostOptions host_options;
    host_options.model = options.model;
    host_options.n_threads = n_threads;
    if (Status status = Host::check_survival(host_options); !status.ok()) return status;
    Result<Host> host = Host::create(host_options);
    if (!host.ok()) return host.status();
    Tokens tokens = host->tokenize(text.value());
    if (static_cast<int>(tokens.size()) < options.n_ctx) {
        return Status(Error::kInvalidArgument, fmt::format("{}: has {} tokens; at least {} (--ctx) are needed",
                                                           options.text, tokens.size(), options.n_ctx));
    }
    tokens.resize(std::min(tokens.size(), static_cast<size_t>(std::max(options.n_tokens, options.n_ctx))));
    const Result<Energies> energies = measure(host.value(), tokens, options.n_ctx, n_threads);
    if (!energies.ok()) return energies.status();
    if (energies->empty())
        return Status(Error::kUnsupported, options.model + ": no layer's cache was seen; nothing to calibrate");
    const std::string name = host->metadata("general.name");
    CalibrationFile file{name.empty() ? std::filesystem::path(options.model).filename().string() : name,
                         std::filesystem::path(options.text).filename().string(),
                         static_cast<int>(tokens.size()),
                         {}};
    const Result<int> n_unknown = add_layers(file, options.model, energies.value(), n_threads);
    if (!n_unknown.ok()) return n_unknown.status();
    if (n_unknown.value() > 0) {
        fmt::print(stderr, "{} layers have no attn_output.weight in the model's file: their values get scales of 1\n",
                   n_unknown.value());
    }
    if (Status status = write_calibration(file, options.out); !status.ok()) return status;
    fmt::print("{}: scales for {} layers\n  export TURBOQUANT_CALIBRATION={}\n", options.out, energies->size(),
               options.out);
    return {};
}

}  // namespace

CLI::App* add_calibrate_command(CLI::App& app, CalibrateOptions& o) {
    CLI::App* command = app.add_subcommand("calibrate", "Channel scales for a model's cache, measured on a text");
    command->add_option("--model,-m", o.model, "GGUF file of the model")->type_name("FILE")->required();
    command->add_option("--text,-f", o.text, "Text file")->type_name("FILE")->required();
    command->add_option("--out,-o", o.out, "GGUF file to write")->type_name("FILE")->required();
    command
        ->add_option("--ctx,-c", o.n_ctx,
                     "Tokens that are read together: best about as many as will be (default: 2048)")
        ->type_name("N")
        ->check(CLI::Range(kMinContext, kMaxContext));
    command->add_option("--tokens,-n", o.n_tokens, "Tokens of the text (default: 8192)")
        ->type_name("N")
        ->check(CLI::Range(1, kMaxTokens));
    command->add_option("--threads,-t", o.n_threads, "Threads (default: every core)")
        ->type_name("N")
        ->check(CLI::Range(0, 512));
    command->footer(kFooter);
    return command;
}

int run_calibrate(const CalibrateOptions& options) {
    const Status status = calibrate(options);
    return status.ok() ? 0 : fail(1, status.message());
}

}  // namespace tq::tool
