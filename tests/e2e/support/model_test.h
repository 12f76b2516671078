// Tests with the real model: on the packed cache and, where one asks for it, on llama.cpp's own.
#pragma once

#include "generation.h"
#include "host.h"

namespace tq::e2e {

class ModelTest : public testing::Test {
  protected:
    void SetUp() override {
        TQ_NEEDS_FILE(TQ_E2E_MODEL);
        capture_log();
        model_ = load_model(TQ_E2E_MODEL, Cache::kTurboQuant);
        ASSERT_NE(model_, nullptr) << "the model or the plugin did not load";
    }

    llama_model* model() { return model_.get(); }
    llama_model* f16() {
        if (!f16_) f16_ = load_model(TQ_E2E_MODEL, Cache::kF16);
        return f16_.get();
    }

  private:
    llama_model_ptr model_, f16_;
};

}  // namespace tq::e2e
