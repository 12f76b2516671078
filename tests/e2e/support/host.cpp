#include "host.h"

#include <sys/wait.h>

#include <cstdio>
#include <mutex>

#include <ggml-cpp.h>
#include <ggml.h>
#include <llama.h>

namespace tq::e2e {
namespace {

std::mutex g_mutex;
std::vector<std::string> g_log;

void keep(ggml_log_level, const char* text, void*) {
    std::lock_guard lock(g_mutex);
    g_log.emplace_back(text);
}

std::string read_all(int fd) {
    std::string text;
    char buffer[4096];
    for (ssize_t n; (n = read(fd, buffer, sizeof buffer)) > 0;) text.append(buffer, static_cast<size_t>(n));
    return text;
}

void write_log(int fd) {
    for (const std::string& line : logged()) {
        if (write(fd, line.data(), line.size()) < 0) return;
    }
}

}  // namespace

void capture_log() {
    {
        std::lock_guard lock(g_mutex);
        g_log.clear();
    }
    llama_log_set(keep, nullptr);  // sets ggml's callback as well
    ggml_log_set(keep, nullptr);
}

std::vector<std::string> logged() {
    std::lock_guard lock(g_mutex);
    return g_log;
}

int count_logged(const std::string& part) {
    int count = 0;
    for (const std::string& line : logged()) count += line.find(part) != std::string::npos;
    return count;
}

ggml_backend_dev_t load_plugin() {
    ggml_backend_reg_t reg = ggml_backend_load(std::getenv("GGML_BACKEND_PATH"));
    return reg ? ggml_backend_reg_dev_get(reg, 0) : nullptr;
}

std::vector<double> kv_buffer_mib() {
    const std::string key = "KV buffer size = ";
    std::vector<double> sizes;
    for (const std::string& line : logged()) {
        const size_t at = line.find(key);
        if (at != std::string::npos) sizes.push_back(std::atof(line.c_str() + at + key.size()));
    }
    return sizes;
}

double resident_mib() {
    long total = 0, resident = 0;
    if (FILE* file = std::fopen("/proc/self/statm", "r")) {
        if (std::fscanf(file, "%ld %ld", &total, &resident) != 2) resident = 0;
        std::fclose(file);
    }
    return static_cast<double>(resident) * static_cast<double>(sysconf(_SC_PAGESIZE)) / (1 << 20);
}

ChildResult in_child(const std::vector<std::string>& environment, bool (*fn)()) {
    int ends[2];
    if (pipe(ends) != 0) return {};
    const pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        for (const std::string& entry : environment) {
            const size_t equals = entry.find('=');
            setenv(entry.substr(0, equals).c_str(), entry.c_str() + equals + 1, 1);
        }
        capture_log();
        const bool ok = fn();
        write_log(ends[1]);
        _exit(ok ? 0 : 1);
    }
    close(ends[1]);
    ChildResult result;
    result.log = read_all(ends[0]);
    close(ends[0]);
    int status = 0;
    if (child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status)) result.status = WEXITSTATUS(status);
    return result;
}

ggml_backend_t plugin_backend() {
    static ggml_backend_ptr backend(ggml_backend_dev_init(load_plugin(), nullptr));
    return backend.get();
}

ggml_backend_t cpu_backend() {
    static ggml_backend_ptr backend(ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr));
    return backend.get();
}

}  // namespace tq::e2e
