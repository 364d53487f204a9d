// Loads a model into ONNX Runtime: options, providers, signature. Nothing here runs it.
//
// One session per version, from memory, so a model cannot name files beside itself. One
// thread a run unless told otherwise, and no spinning: cores are shared with the loops.
#include <algorithm>
#include <cctype>

#include "run/ort.h"

namespace router {
namespace {

using ort::Runtime;

constexpr char kSuffix[] = "ExecutionProvider";

struct OptionsOwner {
  Runtime* runtime;
  ort::SessionOptions* get = nullptr;
  ~OptionsOwner() {
    if (get != nullptr) ort::release_session_options(runtime->table, get);
  }
};

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

// "CUDAExecutionProvider" -> "CUDA", the name the runtime's generic entry takes.
std::string short_name(const std::string& full) {
  const size_t at = full.rfind(kSuffix);
  return at == std::string::npos ? full : full.substr(0, at);
}

std::string listed(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + short_name(name);
  return text;
}

std::string append_cuda(Runtime* runtime, ort::SessionOptions* options,
                        const std::vector<const char*>& keys,
                        const std::vector<const char*>& values) {
  ort::CudaOptions* cuda = nullptr;
  std::string why = runtime->take_error(ort::create_cuda_options(runtime->table, &cuda));
  if (!why.empty()) return why;
  why = runtime->take_error(ort::update_cuda_options(runtime->table, cuda, keys.data(),
                                                     values.data(), keys.size()));
  if (why.empty()) {
    why = runtime->take_error(ort::append_cuda(runtime->table, options, cuda));
  }
  ort::release_cuda_options(runtime->table, cuda);
  return why;
}

// Adds one provider with its options, `provider.<name>.<option>`.
std::string append(Runtime* runtime, ort::SessionOptions* session_options,
                   const std::string& asked, const std::string& full,
                   const Options& options) {
  const std::string prefix = "provider." + asked + ".";
  std::vector<const char*> keys, values;
  for (const auto& [key, value] : options) {
    if (key.rfind(prefix, 0) != 0) continue;
    keys.push_back(key.c_str() + prefix.size());
    values.push_back(value.c_str());
  }
  const std::string name = short_name(full);
  if (name == "CUDA") return append_cuda(runtime, session_options, keys, values);
  if (name == "CPU") return keys.empty() ? "" : "provider cpu takes no options";
  return runtime->take_error(ort::append_provider(runtime->table, session_options,
                                                  name.c_str(), keys.data(), values.data(),
                                                  keys.size()));
}

std::string choose_providers(Runtime* runtime, ort::SessionOptions* session_options,
                             const Options& options, OrtVersion* version) {
  std::string problems;
  for (const std::string& asked : split_list(option(options, "providers", "cpu"))) {
    auto is_asked = [&](const std::string& full) {
      return lower(full) == lower(asked) || lower(short_name(full)) == lower(asked);
    };
    const auto& known = runtime->providers;
    const auto found = std::find_if(known.begin(), known.end(), is_asked);
    std::string why = found == known.end()
                          ? "not in this onnxruntime " + runtime->version +
                                ", which has: " + listed(known)
                          : append(runtime, session_options, asked, *found, options);
    if (why.empty()) {
      version->providers.push_back(lower(short_name(*found)));
      continue;
    }
    why = "provider '" + asked + "' is not available: " + why;
    problems += (problems.empty() ? "" : "; ") + why;
  }
  if (version->providers.empty()) {
    return problems.empty() ? "providers is empty" : problems;
  }
  if (!problems.empty()) {
    version->warnings.push_back(problems + "; using " + listed(version->providers));
  }
  return {};
}

// Reads one input's or output's type. `is_served` turns false for what is no tensor.
std::string read_spec(Runtime* runtime, ort::TypeInfo* type, TensorSpec* spec,
                      int* element_type) {
  const ort::Table table = runtime->table;
  int onnx_type = 0;
  std::string why = runtime->take_error(ort::onnx_type(table, type, &onnx_type));
  spec->is_served = onnx_type == ort::kOnnxTensor;
  if (!why.empty() || !spec->is_served) return why;
  const ort::ShapeInfo* info = nullptr;  // belongs to `type`
  why = runtime->take_error(ort::type_as_tensor(table, type, &info));
  if (why.empty()) why = runtime->take_error(ort::element_type(table, info, element_type));
  size_t rank = 0;
  if (why.empty()) why = runtime->take_error(ort::dims_count(table, info, &rank));
  if (why.empty() && rank > kRankMax) why = "it has more than 16 dimensions";
  if (why.empty()) {
    spec->shape.rank = static_cast<uint8_t>(rank);
    why = runtime->take_error(ort::dims(table, info, spec->shape.dims.data(), rank));
  }
  spec->type = datatype_of_ort(*element_type);
  spec->is_served = spec->type != DataType::invalid;
  if (why.empty() && rank == 0 && runtime->minor >= ort::kHasShapeSince) {
    spec->has_shape = ort::has_shape(table, info);
  }
  return why;
}

std::string read_tensor(OrtVersion* version, size_t index, bool is_input) {
  Runtime* runtime = version->runtime;
  const ort::Table table = runtime->table;
  TensorSpec spec;
  int element_type = 0;
  char* name = nullptr;
  ort::TypeInfo* type = nullptr;
  const auto& get_name = ort::input_name;
  const auto& get_type = ort::input_type;
  std::string why = runtime->take_error(
      is_input ? get_name(table, version->session, index, runtime->allocator, &name)
               : ort::output_name(table, version->session, index, runtime->allocator, &name));
  if (!why.empty()) return why;
  spec.name = name;
  runtime->take_error(ort::allocator_free(table, runtime->allocator, name));
  why = runtime->take_error(is_input
                                ? get_type(table, version->session, index, &type)
                                : ort::output_type(table, version->session, index, &type));
  if (why.empty()) {
    why = read_spec(runtime, type, &spec, &element_type);
    ort::release_type_info(table, type);
  }
  if (!why.empty()) return spec.name + ": " + why;
  if (is_input && !spec.is_served) {
    return "input '" + spec.name + "' is not a tensor of a type that can be sent";
  }
  if (!spec.is_served) {
    version->warnings.push_back("output '" + spec.name +
                                "' is not a tensor that can be sent: it is hidden");
    return {};
  }
  auto& specs = is_input ? version->signature.inputs : version->signature.outputs;
  specs.push_back(std::move(spec));
  if (is_input) version->input_types.push_back(element_type);
  return {};
}

std::string read_signature(OrtVersion* version) {
  Runtime* runtime = version->runtime;
  size_t inputs = 0, outputs = 0;
  std::string why =
      runtime->take_error(ort::input_count(runtime->table, version->session, &inputs));
  if (why.empty()) {
    why = runtime->take_error(ort::output_count(runtime->table, version->session, &outputs));
  }
  if (why.empty() && (inputs > kTensorsMax || outputs > OrtOutputs::kMax)) {
    why = "the model has " + std::to_string(inputs) + " inputs and " +
          std::to_string(outputs) + " outputs; 64 and 255 can be served";
  }
  for (size_t i = 0; i < inputs && why.empty(); ++i) why = read_tensor(version, i, true);
  for (size_t i = 0; i < outputs && why.empty(); ++i) why = read_tensor(version, i, false);
  if (why.empty() && version->signature.outputs.empty()) {
    why = "the model has no output that is a tensor";
  }
  return why;
}

std::string make_options(OptionsOwner* owner, const Options& options, OrtVersion* version) {
  Runtime* runtime = owner->runtime;
  const ort::Table table = runtime->table;
  uint32_t threads = 1;
  std::string why;
  if (!option_number(options, "intra_op_threads", 1024, &threads, &why)) return why;
  version->intra_op_threads = threads;
  why = runtime->take_error(ort::create_session_options(table, &owner->get));
  auto then = [&](ort::Status* status) {
    std::string next = runtime->take_error(status);
    if (why.empty()) why = std::move(next);
  };
  if (!why.empty()) return why;
  then(ort::set_execution_mode(table, owner->get, ort::kSequential));
  then(ort::set_optimization_level(table, owner->get, ort::kOptimizeAll));
  then(ort::set_intra_op_threads(table, owner->get, static_cast<int>(threads)));
  then(ort::set_inter_op_threads(table, owner->get, 1));
  then(ort::add_config(table, owner->get, "session.intra_op.allow_spinning", "0"));
  then(ort::add_config(table, owner->get, "session.inter_op.allow_spinning", "0"));
  // Weights kept in files beside the model are looked for where there are none: a model must
  // not make the server read what its working directory happens to hold.
  then(ort::add_config(table, owner->get,
                       "session.model_external_initializers_file_folder_path", "/dev/null"));
  if (why.empty()) why = choose_providers(runtime, owner->get, options, version);
  return why;
}

// True when a tensor of the model says that its values are in a file: an entry of
// TensorProto.external_data (field 13) whose key is "location". Old libraries would look
// for it in the working directory, whatever they are told.
bool names_files(ByteView model) {
  constexpr std::string_view kKey{"\n\x08location\x12", 11};
  for (size_t at = model.find(kKey); at != ByteView::npos; at = model.find(kKey, at + 1)) {
    if (at >= 2 && model[at - 2] == 0x6a) return true;
    if (at >= 3 && model[at - 3] == 0x6a && (model[at - 2] & 0x80) != 0) return true;
  }
  return false;
}

}  // namespace

DataType datatype_of_ort(int type) {
  constexpr DataType kTypes[] = {
      DataType::invalid, DataType::fp32,   DataType::uint8,   DataType::int8,
      DataType::uint16,  DataType::int16,  DataType::int32,   DataType::int64,
      DataType::bytes,   DataType::boolean, DataType::fp16,   DataType::fp64,
      DataType::uint32,  DataType::uint64, DataType::invalid, DataType::invalid,
      DataType::bf16};
  return type < 0 || type > ort::kBfloat16 ? DataType::invalid : kTypes[type];
}

std::string load_ort(const ByteView& bytes, const Options& options,
                     std::unique_ptr<Version>* out) {
  std::string why;
  if (names_files(bytes)) return "its weights are in other files, which is not allowed";
  Runtime* runtime = Runtime::open(std::string(option(options, "library")), &why);
  if (runtime == nullptr) return why;
  auto version = std::make_unique<OrtVersion>();
  version->runtime = runtime;
  version->platform = "onnxruntime_onnx";
  OptionsOwner owner{runtime};
  why = make_options(&owner, options, version.get());
  if (why.empty()) {
    why = runtime->take_error(ort::create_session(runtime->table, runtime->env, bytes.data(),
                                                  bytes.size(), owner.get,
                                                  &version->session));
  }
  if (why.empty()) why = read_signature(version.get());
  if (why.empty()) *out = std::move(version);
  return why;
}

std::vector<std::string> runtime_providers(const std::string& library, std::string* version,
                                           std::string* why) {
  Runtime* runtime = Runtime::open(library, why);
  if (runtime == nullptr) return {};
  *version = runtime->version;
  return runtime->providers;
}

}  // namespace router
