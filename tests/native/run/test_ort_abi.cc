// Every slot of the runtime's table that is used, called for what it must do. A wrong number
// crashes or answers nonsense: both are seen here rather than in a server.
#include <dlfcn.h>

#include <array>

#include "run/models.h"
#include "run/ort_abi.h"

using namespace router;

namespace {

ort::Runtime* runtime() {
  std::string why;
  ort::Runtime* opened = ort::Runtime::open(library_path(), &why);
  if (opened == nullptr) check::report(__FILE__, __LINE__, why);
  return opened;
}

std::string said(ort::Status* status) { return runtime()->take_error(status); }

struct Opened {
  ort::Table table = runtime()->table;
  ort::SessionOptions* options = nullptr;
  ort::Session* session = nullptr;

  explicit Opened(const std::string& name) {
    const std::string bytes = model_bytes(name);
    CHECK_EQ(said(ort::create_session_options(table, &options)), "");      // 10
    CHECK_EQ(said(ort::create_session(table, runtime()->env, bytes.data(), bytes.size(),
                                      options, &session)),                 // 8
             "");
  }
  ~Opened() {
    ort::release_session(table, session);          // 95
    ort::release_session_options(table, options);  // 100
  }
};

}  // namespace

TEST(slots_4_69_78_125_126_open_a_runtime) {
  REQUIRE(runtime() != nullptr);
  CHECK(runtime()->env != nullptr && runtime()->memory != nullptr);
  CHECK(runtime()->allocator != nullptr);
  CHECK_EQ(runtime()->providers.back(), "CPUExecutionProvider");
}

TEST(slots_2_8_93_report_what_is_wrong_with_a_model) {
  Opened good("mlp");
  ort::Session* session = nullptr;
  const std::string why = said(ort::create_session(good.table, runtime()->env, "junk", 4,
                                                   good.options, &session));
  CHECK(why.find("protobuf") != std::string::npos);
  CHECK(session == nullptr);
}

TEST(slots_13_23_24_25_130_accept_good_values_and_refuse_bad_ones) {
  Opened opened("mlp");
  const ort::Table table = opened.table;
  CHECK_EQ(said(ort::set_execution_mode(table, opened.options, ort::kSequential)), "");
  CHECK(!said(ort::set_execution_mode(table, opened.options, 77)).empty());
  CHECK_EQ(said(ort::set_optimization_level(table, opened.options, ort::kOptimizeAll)), "");
  CHECK(!said(ort::set_optimization_level(table, opened.options, 77)).empty());
  CHECK_EQ(said(ort::set_intra_op_threads(table, opened.options, 1)), "");
  CHECK_EQ(said(ort::set_inter_op_threads(table, opened.options, 1)), "");
  CHECK_EQ(said(ort::add_config(table, opened.options, "a.key", "value")), "");
  CHECK(!said(ort::add_config(table, opened.options, "", "value")).empty());
}

TEST(slots_30_31_33_34_36_37_55_56_60_61_62_76_98_read_a_signature) {
  Opened opened("mlp");
  const ort::Table table = opened.table;
  size_t inputs = 0, outputs = 0;
  CHECK_EQ(said(ort::input_count(table, opened.session, &inputs)), "");
  CHECK_EQ(said(ort::output_count(table, opened.session, &outputs)), "");
  CHECK_EQ(inputs, 1U);
  CHECK_EQ(outputs, 1U);
  char* name = nullptr;
  CHECK_EQ(said(ort::input_name(table, opened.session, 0, runtime()->allocator, &name)), "");
  CHECK_EQ(name, std::string("x"));
  CHECK_EQ(said(ort::allocator_free(table, runtime()->allocator, name)), "");
  CHECK_EQ(said(ort::output_name(table, opened.session, 0, runtime()->allocator, &name)), "");
  CHECK_EQ(name, std::string("y"));
  CHECK_EQ(said(ort::allocator_free(table, runtime()->allocator, name)), "");
  for (int64_t columns : {16, 2}) {
    ort::TypeInfo* type = nullptr;
    CHECK_EQ(said(columns == 16 ? ort::input_type(table, opened.session, 0, &type)
                                : ort::output_type(table, opened.session, 0, &type)),
             "");
    int onnx_type = 0, element_type = 0;
    const ort::ShapeInfo* info = nullptr;
    size_t rank = 0;
    std::array<int64_t, 2> dims{};
    CHECK_EQ(said(ort::onnx_type(table, type, &onnx_type)), "");
    CHECK_EQ(onnx_type, ort::kOnnxTensor);
    CHECK_EQ(said(ort::type_as_tensor(table, type, &info)), "");
    CHECK_EQ(said(ort::element_type(table, info, &element_type)), "");
    CHECK_EQ(element_type, static_cast<int>(ort::kFloat));
    CHECK_EQ(said(ort::dims_count(table, info, &rank)), "");
    CHECK_EQ(rank, 2U);
    CHECK_EQ(said(ort::dims(table, info, dims.data(), 2)), "");
    CHECK_EQ(dims[0], -1);
    CHECK_EQ(dims[1], columns);
    ort::release_type_info(table, type);
  }
}

TEST(slot_390_tells_an_absent_shape_from_a_scalars) {
  if (runtime()->minor < ort::kHasShapeSince) return;  // and is not called then
  for (const char* model : {"scalar", "unranked"}) {
    Opened opened(model);
    ort::TypeInfo* type = nullptr;
    const ort::ShapeInfo* info = nullptr;
    CHECK_EQ(said(ort::input_type(opened.table, opened.session, 0, &type)), "");
    CHECK_EQ(said(ort::type_as_tensor(opened.table, type, &info)), "");
    CHECK_EQ(ort::has_shape(opened.table, info), std::string(model) == "scalar");
    ort::release_type_info(opened.table, type);
  }
}

TEST(slots_9_39_46_47_49_51_65_96_97_99_run_terminate_and_run_again) {
  Opened opened("two");
  const ort::Table table = opened.table;
  std::array<float, 3> a{1, 2, 3}, b{10, 20, 30};
  const std::array<int64_t, 2> shape{1, 3};
  std::array<ort::Value*, 2> in{}, out{};
  for (size_t i = 0; i < 2; ++i) {
    CHECK_EQ(said(ort::create_tensor_with_data(table, runtime()->memory,
                                               i == 0 ? a.data() : b.data(), 12, shape.data(),
                                               2, ort::kFloat, &in[i])),
             "");
  }
  ort::RunOptions* options = nullptr;
  CHECK_EQ(said(ort::create_run_options(table, &options)), "");
  const std::array<const char*, 2> names{"a", "b"}, wanted{"product", "sum"};
  auto run = [&] {
    return said(ort::run(table, opened.session, options, names.data(), in.data(), 2,
                         wanted.data(), 2, out.data()));
  };
  CHECK_EQ(said(ort::set_terminate(table, options)), "");
  CHECK(!run().empty());
  CHECK_EQ(said(ort::unset_terminate(table, options)), "");
  REQUIRE(run().empty());
  void* data = nullptr;
  CHECK_EQ(said(ort::tensor_data(table, out[0], &data)), "");
  CHECK_EQ(static_cast<float*>(data)[2], 90.0F);
  ort::ShapeInfo* info = nullptr;
  size_t rank = 0;
  CHECK_EQ(said(ort::tensor_shape(table, out[1], &info)), "");
  CHECK_EQ(said(ort::dims_count(table, info, &rank)), "");
  CHECK_EQ(rank, 2U);
  ort::release_shape_info(table, info);
  for (ort::Value* value : {in[0], in[1], out[0], out[1]}) ort::release_value(table, value);
  ort::release_run_options(table, options);
}

TEST(slots_48_53_54_252_carry_strings_with_zeros_in_them) {
  const ort::Table table = runtime()->table;
  const std::string first("a\0b", 3), second = "xyz!";
  const int64_t count = 2;
  ort::Value* value = nullptr;
  CHECK_EQ(said(ort::create_tensor(table, runtime()->allocator, &count, 1, ort::kString,
                                   &value)),
           "");
  for (size_t i = 0; i < 2; ++i) {
    const std::string& from = i == 0 ? first : second;
    char* to = nullptr;
    CHECK_EQ(said(ort::resized_string(table, value, i, from.size(), &to)), "");
    std::memcpy(to, from.data(), from.size());
  }
  size_t size = 0;
  CHECK_EQ(said(ort::string_data_length(table, value, &size)), "");
  REQUIRE(size == 7);
  std::array<size_t, 2> starts{};
  std::string all(size, '?');
  CHECK_EQ(said(ort::string_content(table, value, all.data(), size, starts.data(), 2)), "");
  CHECK_EQ(all, first + second);
  CHECK_EQ(starts[1], 3U);
  ort::release_value(table, value);
}

TEST(slots_204_205_206_208_know_whether_this_build_has_cuda) {
  const ort::Table table = runtime()->table;
  ort::CudaOptions* cuda = nullptr;
  const std::string why = said(ort::create_cuda_options(table, &cuda));
  if (!why.empty()) {
    CHECK(why.find("CUDA") != std::string::npos);
    // Stands for options nobody could make here: read, at most, to find no provider.
    alignas(64) static std::array<char, 4096> blank{};
    auto* options = reinterpret_cast<ort::CudaOptions*>(blank.data());
    Opened opened("mlp");
    CHECK(said(ort::append_cuda(table, opened.options, options)).find("_Cuda") !=
          std::string::npos);
    CHECK(said(ort::update_cuda_options(table, options, nullptr, nullptr, 0)).find("CUDA") !=
          std::string::npos);
  }
  ort::release_cuda_options(table, cuda);
}

TEST(slot_216_adds_a_provider_by_name_and_refuses_an_unknown_one) {
  Opened opened("mlp");
  const std::string why =
      said(ort::append_provider(opened.table, opened.options, "NoSuch", nullptr, nullptr, 0));
  CHECK(why.find("NoSuch") != std::string::npos);
}

TEST(a_library_that_is_missing_or_something_else_is_refused_by_name) {
  std::string why, version;
  CHECK(runtime_providers("/nonexistent/libonnxruntime.so", &version, &why).empty());
  CHECK(why.find("/nonexistent/libonnxruntime.so") != std::string::npos);
  CHECK(runtime_providers("libm.so.6", &version, &why).empty());
  CHECK_EQ(why, "libm.so.6 is not ONNX Runtime: it has no OrtGetApiBase");
}

TEST(an_old_library_is_refused_by_name_and_version) {
  std::string why, version;
  const std::string old = setting("ROUTER_TEST_OLD_RUNTIME");
  CHECK(runtime_providers(old, &version, &why).empty());
  CHECK_EQ(why, old + " is onnxruntime 1.14.1; 1.15 or newer is needed");
}

TEST(the_library_is_asked_for_its_version_and_providers) {
  std::string why, version;
  const auto providers = runtime_providers(library_path(), &version, &why);
  CHECK_EQ(why, "");
  CHECK_EQ(version, runtime()->version);
  CHECK_EQ(providers.size(), runtime()->providers.size());
}

TEST(what_the_library_logs_is_kept_and_not_printed) {
  std::unique_ptr<Version> gather = load("gather");
  Asked bad;
  bad.add<int64_t>("i", DataType::int64, {1}, {99});
  RunSlot slot;
  run_batch(gather.get(), {bad.bind_to(*gather)}, &slot);
  CHECK(runtime()->last_logged().find("Gather") != std::string::npos);
}
