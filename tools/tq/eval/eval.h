// tq eval: the whole command.
#pragma once

#include "eval/options.h"
#include "eval/report.h"

namespace tq::tool {

// Results to stdout, progress and errors to stderr. Returns the exit status: 0; 1 something can't be read, loaded or
// computed; 2 wrong usage.
int run_eval(const EvalOptions& options);

// The same as a value; of options that check_eval_options has passed.
Result<EvalReport> evaluate(const EvalOptions& options, const std::vector<CacheChoice>& caches);

}  // namespace tq::tool
