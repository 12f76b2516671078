// Typed errors. The library never aborts, prints or throws: every fallible call returns a Status or a Result.
#pragma once

#include <optional>
#include <string>
#include <utility>

namespace tq {

enum class Error {
    kOk,
    kInvalidArgument,  // the caller's value is wrong; the message names it and what is allowed
    kUnsupported,      // a valid request that this build or machine can't serve; the message says why
    kOutOfRange,       // an index beyond what was allocated
    kOutOfMemory,
};

class [[nodiscard]] Status {
  public:
    Status() = default;
    Status(Error error, std::string message) : error_(error), message_(std::move(message)) {}

    bool ok() const { return error_ == Error::kOk; }
    Error error() const { return error_; }
    const std::string& message() const { return message_; }

  private:
    Error error_ = Error::kOk;
    std::string message_;
};

// A value, or the reason why there is none.
template <class T>
class [[nodiscard]] Result {
  public:
    Result(T value) : value_(std::move(value)) {}          // NOLINT(google-explicit-constructor)
    Result(Status status) : status_(std::move(status)) {}  // NOLINT(google-explicit-constructor)

    bool ok() const { return value_.has_value(); }
    const Status& status() const { return status_; }
    T& value() { return *value_; }
    const T& value() const { return *value_; }
    T* operator->() { return &*value_; }
    const T* operator->() const { return &*value_; }

  private:
    std::optional<T> value_;
    Status status_;
};

}  // namespace tq
