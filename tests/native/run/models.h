// Models for the run tests: where they are, loading one, a request with its bytes.
//
// ROUTER_TEST_MODELS names the folder tests/run/native_models.py has filled,
// ROUTER_TEST_RUNTIME the library.
#pragma once

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "check.h"
#include "run/batch.h"
#include "run/version.h"

namespace router {

inline std::string setting(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

inline std::string library_path() { return setting("ROUTER_TEST_RUNTIME"); }

inline std::string model_bytes(const std::string& name) {
  std::ifstream file(setting("ROUTER_TEST_MODELS") + "/" + name + ".onnx", std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline std::unique_ptr<Version> load(const std::string& name, Options options = {},
                                     std::string* why = nullptr) {
  options.emplace_back("library", library_path());
  std::unique_ptr<Version> version;
  std::string problem = load_version(name, 3, model_bytes(name), options, &version);
  if (why != nullptr) {
    *why = problem;
  } else if (!problem.empty()) {
    check::report(__FILE__, __LINE__, problem);
  }
  return version;
}

inline std::unique_ptr<Version> load_script(const std::string& script, Options options = {}) {
  options.emplace_back("kind", "scripted");
  options.emplace_back("script", script);
  return load("script", options);
}

// One request, its bytes and its attempt. Inputs are added in any order.
struct Asked {
  InferRequest request;
  std::vector<std::unique_ptr<std::string>> bytes;
  Attempt attempt;
  Status bound;

  Asked() = default;
  Asked(const Asked&) = delete;

  void add_bytes(const char* name, DataType type, std::vector<int64_t> dims,
                 std::string raw) {
    bytes.push_back(std::make_unique<std::string>(std::move(raw)));
    TensorView view;
    view.name = name;
    view.type = type;
    for (int64_t dim : dims) view.shape.dims[view.shape.rank++] = dim;
    (void)element_count(view.shape, &view.elements);
    view.bytes = *bytes.back();
    request.inputs.push_back(view);
  }
  template <typename T>
  void add(const char* name, DataType type, std::vector<int64_t> dims,
           const std::vector<T>& values) {
    add_bytes(name, type, std::move(dims),
              {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)});
  }
  Attempt* bind_to(const Version& version) {
    attempt.request = &request;
    bound = router::bind(version.signature, version.model, request, &attempt.binding);
    return &attempt;
  }
};

template <typename T>
std::vector<T> values_of(const TensorView& tensor) {
  std::vector<T> values(tensor.bytes.size() / sizeof(T));
  std::memcpy(values.data(), tensor.bytes.data(), values.size() * sizeof(T));
  return values;
}

inline std::string text(std::string_view value) {
  const auto size = static_cast<uint32_t>(value.size());
  return std::string(reinterpret_cast<const char*>(&size), 4) + std::string(value);
}

inline void run_batch(Version* version, const std::vector<Attempt*>& attempts,
                      RunSlot* slot) {
  Batch batch;
  batch.version = version;
  batch.attempts = attempts;
  for (Attempt* attempt : attempts) batch.rows += attempt->binding.rows;
  batch.waiting = static_cast<uint32_t>(attempts.size());
  version->run(&batch, slot);
}

}  // namespace router
