// The entries of ONNX Runtime's C API that are used, by their slot in its function table.
//
// The wheels carry the library and no header. The table is append-only: a slot never moves
// once released, so a number and a C++ type are all that is needed, and
// tests/native/run/test_ort_abi.cc exercises each one. Asked for is the oldest API version
// that has every entry (slot 252 came with 1.15); a newer library serves it too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

namespace router::ort {

constexpr uint32_t kApiVersion = 15;
// The first release in which an absent shape can be told from a scalar's.
constexpr uint32_t kHasShapeSince = 24;

// Opaque: only pointers to them travel.
struct Status;
struct Env;
struct SessionOptions;
struct Session;
struct RunOptions;
struct Value;
struct MemoryInfo;
struct TypeInfo;
struct ShapeInfo;
struct Allocator;
struct CudaOptions;

enum ElementType : int {
  kFloat = 1, kUint8, kInt8, kUint16, kInt16, kInt32, kInt64, kString, kBool, kFloat16,
  kDouble, kUint32, kUint64, kBfloat16 = 16
};
constexpr int kOnnxTensor = 1;
constexpr int kLogError = 3, kOptimizeAll = 99, kSequential = 0;
constexpr int kArenaAllocator = 1, kMemoryDefault = 0;

using Logger = void (*)(void* param, int severity, const char* category, const char* id,
                        const char* location, const char* message);
using Table = void* const*;

template <size_t Slot, typename Function>
struct Entry;
template <size_t Slot, typename Result, typename... Args>
struct Entry<Slot, Result(Args...)> {
  Result operator()(Table table, Args... args) const {
    return reinterpret_cast<Result (*)(Args...)>(table[Slot])(args...);
  }
};

using Texts = const char* const*;

constexpr Entry<2, const char*(const Status*)> error_message;
constexpr Entry<4, Status*(Logger, void*, int, const char*, Env**)> create_env;
constexpr Entry<8, Status*(const Env*, const void*, size_t, const SessionOptions*, Session**)>
    create_session;
constexpr Entry<9, Status*(Session*, const RunOptions*, Texts, const Value* const*, size_t,
                           Texts, size_t, Value**)>
    run;
constexpr Entry<10, Status*(SessionOptions**)> create_session_options;
constexpr Entry<13, Status*(SessionOptions*, int)> set_execution_mode;
constexpr Entry<23, Status*(SessionOptions*, int)> set_optimization_level;
constexpr Entry<24, Status*(SessionOptions*, int)> set_intra_op_threads;
constexpr Entry<25, Status*(SessionOptions*, int)> set_inter_op_threads;
constexpr Entry<30, Status*(const Session*, size_t*)> input_count;
constexpr Entry<31, Status*(const Session*, size_t*)> output_count;
constexpr Entry<33, Status*(const Session*, size_t, TypeInfo**)> input_type;
constexpr Entry<34, Status*(const Session*, size_t, TypeInfo**)> output_type;
constexpr Entry<36, Status*(const Session*, size_t, Allocator*, char**)> input_name;
constexpr Entry<37, Status*(const Session*, size_t, Allocator*, char**)> output_name;
constexpr Entry<39, Status*(RunOptions**)> create_run_options;
constexpr Entry<46, Status*(RunOptions*)> set_terminate;
constexpr Entry<47, Status*(RunOptions*)> unset_terminate;
constexpr Entry<48, Status*(Allocator*, const int64_t*, size_t, int, Value**)> create_tensor;
constexpr Entry<49, Status*(const MemoryInfo*, void*, size_t, const int64_t*, size_t, int,
                            Value**)>
    create_tensor_with_data;
constexpr Entry<51, Status*(Value*, void**)> tensor_data;
constexpr Entry<53, Status*(const Value*, size_t*)> string_data_length;
constexpr Entry<54, Status*(const Value*, void*, size_t, size_t*, size_t)> string_content;
// The info is a part of the type info and dies with it; null unless it is a tensor.
constexpr Entry<55, Status*(const TypeInfo*, const ShapeInfo**)> type_as_tensor;
constexpr Entry<56, Status*(const TypeInfo*, int*)> onnx_type;
constexpr Entry<60, Status*(const ShapeInfo*, int*)> element_type;
constexpr Entry<61, Status*(const ShapeInfo*, size_t*)> dims_count;
constexpr Entry<62, Status*(const ShapeInfo*, int64_t*, size_t)> dims;
constexpr Entry<65, Status*(const Value*, ShapeInfo**)> tensor_shape;
constexpr Entry<69, Status*(int, int, MemoryInfo**)> create_cpu_memory_info;
constexpr Entry<76, Status*(Allocator*, void*)> allocator_free;
constexpr Entry<78, Status*(Allocator**)> default_allocator;
constexpr Entry<93, void(Status*)> release_status;
constexpr Entry<95, void(Session*)> release_session;
constexpr Entry<96, void(Value*)> release_value;
constexpr Entry<97, void(RunOptions*)> release_run_options;
constexpr Entry<98, void(TypeInfo*)> release_type_info;
constexpr Entry<99, void(ShapeInfo*)> release_shape_info;
constexpr Entry<100, void(SessionOptions*)> release_session_options;
constexpr Entry<125, Status*(char***, int*)> available_providers;
constexpr Entry<126, Status*(char**, int)> release_available_providers;
constexpr Entry<130, Status*(SessionOptions*, const char*, const char*)> add_config;
constexpr Entry<204, Status*(SessionOptions*, const CudaOptions*)> append_cuda;
constexpr Entry<205, Status*(CudaOptions**)> create_cuda_options;
constexpr Entry<206, Status*(CudaOptions*, Texts, Texts, size_t)> update_cuda_options;
constexpr Entry<208, void(CudaOptions*)> release_cuda_options;
constexpr Entry<216, Status*(SessionOptions*, const char*, Texts, Texts, size_t)>
    append_provider;
constexpr Entry<252, Status*(Value*, size_t, size_t, char**)> resized_string;
constexpr Entry<390, bool(const ShapeInfo*)> has_shape;  // only since kHasShapeSince

// The loaded library. One per path and process, never unloaded: the library keeps global
// state and threads of its own. Everything in it may be used from any thread.
class Runtime {
 public:
  // Null, with `why` set, when the library is missing, is not ONNX Runtime or is too old.
  static Runtime* open(const std::string& path, std::string* why);

  Table table = nullptr;
  Allocator* allocator = nullptr;
  MemoryInfo* memory = nullptr;
  Env* env = nullptr;
  std::string version;      // "1.31.1"
  uint32_t minor = 0;
  std::vector<std::string> providers;

  // Empty when `status` is null, else its text; releases it.
  std::string take_error(Status* status) const;
  std::string last_logged() const;  // what the library logged last at error level

 private:
  static void keep_error(void* self, int severity, const char*, const char*, const char*,
                         const char* message);
  std::string start(const std::string& path);

  mutable std::mutex mutex_;
  std::string last_logged_;
};

}  // namespace router::ort
