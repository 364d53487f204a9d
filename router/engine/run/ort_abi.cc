#include "run/ort_abi.h"

#include <dlfcn.h>

#include <cstdlib>
#include <map>

namespace router::ort {
namespace {

// What OrtGetApiBase returns: the library's version and its table for an API version.
struct ApiBase {
  Table (*get_api)(uint32_t version);
  const char* (*version)();
};

}  // namespace

Runtime* Runtime::open(const std::string& path, std::string* why) {
  // Process-wide because the library is; entries are never freed.
  static std::mutex mutex;
  static auto* opened = new std::map<std::string, Runtime*>;
  std::lock_guard<std::mutex> lock(mutex);
  auto found = opened->find(path);
  if (found != opened->end()) return found->second;
  auto* made = new Runtime;
  *why = made->start(path);
  if (!why->empty()) {
    delete made;
    return nullptr;
  }
  return opened->emplace(path, made).first->second;
}

std::string Runtime::start(const std::string& path) {
  if (path.empty()) return "the option library, a path to libonnxruntime.so, is missing";
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return std::string("cannot load ONNX Runtime: ") + dlerror();
  auto base = reinterpret_cast<const ApiBase* (*)()>(dlsym(library, "OrtGetApiBase"));
  if (base == nullptr) return path + " is not ONNX Runtime: it has no OrtGetApiBase";
  version = base()->version();
  if (version.rfind("1.", 0) == 0) {
    minor = static_cast<uint32_t>(std::strtoul(version.c_str() + 2, nullptr, 10));
  }
  // Compared first because the library prints to stderr when asked for too much.
  if (minor >= kApiVersion || version.rfind("1.", 0) != 0) {
    table = base()->get_api(kApiVersion);
  }
  if (table == nullptr) {
    return path + " is onnxruntime " + version + "; 1." + std::to_string(kApiVersion) +
           " or newer is needed";
  }
  Status* problem = create_env(table, &Runtime::keep_error, this, kLogError, "router", &env);
  if (problem == nullptr) problem = default_allocator(table, &allocator);
  if (problem == nullptr) {
    problem = create_cpu_memory_info(table, kArenaAllocator, kMemoryDefault, &memory);
  }
  char** names = nullptr;
  int count = 0;
  if (problem == nullptr) problem = available_providers(table, &names, &count);
  if (problem != nullptr) return "onnxruntime " + version + ": " + take_error(problem);
  providers.assign(names, names + count);
  return take_error(release_available_providers(table, names, count));
}

void Runtime::keep_error(void* self, int severity, const char*, const char*, const char*,
                         const char* message) {
  if (severity < kLogError) return;
  auto* runtime = static_cast<Runtime*>(self);
  std::lock_guard<std::mutex> lock(runtime->mutex_);
  runtime->last_logged_ = message;
}

std::string Runtime::last_logged() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return last_logged_;
}

std::string Runtime::take_error(Status* status) const {
  if (status == nullptr) return {};
  std::string text = error_message(table, status);
  release_status(table, status);
  return text.empty() ? "unnamed failure" : text;
}

}  // namespace router::ort
