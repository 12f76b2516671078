#include "child_process.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace tq::tool {

std::optional<ChildEnd> in_child_process(const std::function<int()>& work) {
    std::fflush(stdout);
    const pid_t child = fork();
    if (child < 0) return std::nullopt;
    if (child == 0) {
        setenv("GGML_NO_BACKTRACE", "1", 1);
        const int status = work();
        std::fflush(stdout);
        _exit(status);
    }
    int ended = 0;
    while (waitpid(child, &ended, 0) < 0) {
        if (errno != EINTR) return std::nullopt;
    }
    if (WIFEXITED(ended)) return ChildEnd{WEXITSTATUS(ended)};
    const int number = WTERMSIG(ended);
    return ChildEnd{1, "signal " + std::to_string(number) + " (" + strsignal(number) + ")"};
}

}  // namespace tq::tool
