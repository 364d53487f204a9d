// Real models through the contract: values, slices, failures, termination, warnings.
#include <chrono>
#include <cmath>
#include <thread>

#include "run/models.h"

using namespace router;

namespace {

std::vector<float> some_floats(size_t count, uint32_t seed) {
  std::vector<float> values(count);
  for (float& value : values) {
    seed = seed * 1664525 + 1013904223;
    value = static_cast<float>(seed >> 8) / 8388608.0F - 1.0F;
  }
  return values;
}

bool mentions(const std::vector<std::string>& warnings, const std::string& words) {
  for (const std::string& warning : warnings) {
    if (warning.find(words) != std::string::npos) return true;
  }
  return false;
}

}  // namespace

TEST(a_joined_batch_gives_each_attempt_what_it_gets_alone) {
  auto version = load("mlp");
  CHECK(version->may_batch);
  RunSlot slot;
  std::vector<std::unique_ptr<Asked>> asked;
  std::vector<Attempt*> attempts;
  std::vector<std::vector<float>> alone;
  for (int64_t rows : {1, 3, 2, 7}) {
    auto& one = *asked.emplace_back(std::make_unique<Asked>());
    one.add("x", DataType::fp32, {rows, 16},
            some_floats(static_cast<size_t>(rows) * 16, static_cast<uint32_t>(rows)));
    run_batch(version.get(), {one.bind_to(*version)}, &slot);
    REQUIRE(one.attempt.status.ok());
    alone.push_back(values_of<float>(one.attempt.outputs[0]));
    attempts.push_back(&one.attempt);
  }
  run_batch(version.get(), attempts, &slot);
  for (size_t i = 0; i < attempts.size(); ++i) {
    REQUIRE(attempts[i]->status.ok());
    const TensorView& y = attempts[i]->outputs[0];
    CHECK_EQ(y.name, "y");
    CHECK_EQ(y.shape.dims[0], static_cast<int64_t>(attempts[i]->binding.rows));
    const auto got = values_of<float>(y);
    REQUIRE(got.size() == alone[i].size());
    for (size_t v = 0; v < got.size(); ++v) CHECK(std::fabs(got[v] - alone[i][v]) < 1e-5F);
  }
  CHECK_EQ(version->counters.splits.load(), 0U);
  CHECK_EQ(version->counters.runs.load(), 5U);
  CHECK_EQ(version->counters.rows.load(), 26U);
}

TEST(unaligned_request_bytes_give_the_same_answer) {
  auto version = load("mlp");
  RunSlot slot;
  const auto values = some_floats(16, 1);
  Asked aligned, shifted;
  aligned.add("x", DataType::fp32, {1, 16}, values);
  std::string raw = "?" + std::string(reinterpret_cast<const char*>(values.data()), 64);
  shifted.add_bytes("x", DataType::fp32, {1, 16}, raw);
  shifted.request.inputs[0].bytes.remove_prefix(1);
  run_batch(version.get(), {aligned.bind_to(*version)}, &slot);
  run_batch(version.get(), {shifted.bind_to(*version)}, &slot);
  CHECK(aligned.attempt.outputs[0].bytes == shifted.attempt.outputs[0].bytes);
}

TEST(a_model_that_mixes_rows_is_not_batched) {
  auto version = load("mean");
  CHECK(!version->may_batch);
  CHECK(version->may_run_on_loop);
  CHECK(mentions(version->warnings, "depends on the rows beside it"));
}

TEST(a_model_whose_first_dimension_is_no_row_is_not_batched) {
  CHECK(!load("scalar")->may_batch);
}

TEST(a_batch_that_comes_back_with_fewer_rows_is_run_attempt_by_attempt) {
  auto version = load("nonzero");
  CHECK(version->may_batch);  // the probe's values do not show it
  RunSlot slot;
  Asked small, large;
  small.add<float>("x", DataType::fp32, {2}, {1, 2});
  large.add<float>("x", DataType::fp32, {3}, {1, 1000, 3});
  run_batch(version.get(), {small.bind_to(*version), large.bind_to(*version)}, &slot);
  CHECK(values_of<float>(small.attempt.outputs[0]) == (std::vector<float>{1, 2}));
  CHECK(values_of<float>(large.attempt.outputs[0]) == (std::vector<float>{1, 3}));
  CHECK_EQ(version->counters.splits.load(), 1U);
  CHECK(version->has_mixed_rows);
}

TEST(one_bad_request_does_not_fail_its_neighbours_and_its_reason_stays_inside) {
  auto version = load("gather");
  RunSlot slot;
  Asked good, bad, other;
  good.add<int64_t>("i", DataType::int64, {2}, {3, 4});
  bad.add<int64_t>("i", DataType::int64, {1}, {99});
  other.add<int64_t>("i", DataType::int64, {1}, {9});
  run_batch(version.get(),
            {good.bind_to(*version), bad.bind_to(*version), other.bind_to(*version)}, &slot);
  CHECK(values_of<float>(good.attempt.outputs[0]) == (std::vector<float>{3, 4}));
  CHECK(values_of<float>(other.attempt.outputs[0]) == (std::vector<float>{9}));
  CHECK_EQ(bad.attempt.status.situation, Situation::model_failed);
  CHECK_EQ(bad.attempt.status.message, "model 'gather' version 3 failed");
  CHECK(bad.attempt.outputs.empty());
  CHECK(version->last_error().find("out of data bounds") != std::string::npos);
  CHECK_EQ(version->counters.failures.load(), 1U);
  CHECK(!version->has_mixed_rows);
}

TEST(strings_travel_whole_alone_and_in_a_batch) {
  auto version = load("strings");
  CHECK(version->may_batch);
  RunSlot slot;
  const std::string with_zero("a\0b", 3);
  Asked one, two, none;
  const std::string first = text("") + text(with_zero) + text("long " + std::string(300, 'x'));
  one.add_bytes("s", DataType::bytes, {1, 3}, first);
  const std::string second = text("1") + text("2") + text("3") + text("") + text("\xff") +
                             text("6");
  two.add_bytes("s", DataType::bytes, {2, 3}, second);
  none.add_bytes("s", DataType::bytes, {0, 3}, "");
  run_batch(version.get(), {one.bind_to(*version), two.bind_to(*version)}, &slot);
  CHECK_EQ(one.attempt.outputs[0].bytes, first);
  CHECK_EQ(two.attempt.outputs[0].bytes, second);
  CHECK_EQ(two.attempt.outputs[0].elements, 6U);
  run_batch(version.get(), {none.bind_to(*version)}, &slot);
  CHECK(none.attempt.status.ok());
  CHECK_EQ(none.attempt.outputs[0].bytes.size(), 0U);
  CHECK_EQ(none.attempt.outputs[0].shape.dims[0], 0);
}

TEST(results_outlive_the_batch_and_the_slot) {
  auto version = load("strings");
  Asked one, two;
  one.add_bytes("s", DataType::bytes, {1, 1}, text("first"));
  two.add_bytes("s", DataType::bytes, {1, 1}, text("second"));
  {
    RunSlot slot;
    run_batch(version.get(), {one.bind_to(*version), two.bind_to(*version)}, &slot);
  }
  { ResultRef gone = std::move(one.attempt.result); }
  CHECK_EQ(two.attempt.outputs[0].bytes, text("second"));
}

TEST(requested_outputs_come_alone_and_in_order_even_in_a_batch) {
  auto version = load("two");
  RunSlot slot;
  Asked one, two;
  for (Asked* asked : {&one, &two}) {
    asked->add<float>("b", DataType::fp32, {1, 3}, {10, 20, 30});
    asked->add<float>("a", DataType::fp32, {1, 3}, {1, 2, 3});
  }
  one.request.outputs = {"product", "sum"};
  two.request.outputs = {"sum"};
  run_batch(version.get(), {one.bind_to(*version), two.bind_to(*version)}, &slot);
  REQUIRE(one.attempt.outputs.size() == 2 && two.attempt.outputs.size() == 1);
  CHECK(values_of<float>(one.attempt.outputs[0]) == (std::vector<float>{10, 40, 90}));
  CHECK(values_of<float>(one.attempt.outputs[1]) == (std::vector<float>{11, 22, 33}));
  CHECK(values_of<float>(two.attempt.outputs[0]) == (std::vector<float>{11, 22, 33}));
}

TEST(every_datatype_goes_through_unchanged) {
  for (DataType type :
       {DataType::boolean, DataType::uint8, DataType::uint16, DataType::uint32,
        DataType::uint64, DataType::int8, DataType::int16, DataType::int32, DataType::int64,
        DataType::fp16, DataType::bf16, DataType::fp32, DataType::fp64}) {
    auto version = load(std::string("typed_") + datatype_name(type));
    REQUIRE(version != nullptr);
    CHECK_EQ(version->signature.inputs[0].type, type);
    CHECK(version->may_batch);
    std::string raw(size_t{4} * datatype_size(type), '\0');
    for (size_t i = 0; i < raw.size(); ++i) {
      raw[i] = static_cast<char>(type == DataType::boolean ? i % 2 : i + 1);
    }
    Asked asked, again;
    asked.add_bytes("x", type, {2, 2}, raw);
    again.add_bytes("x", type, {2, 2}, raw);
    RunSlot slot;
    run_batch(version.get(), {asked.bind_to(*version), again.bind_to(*version)}, &slot);
    REQUIRE(again.attempt.status.ok());
    CHECK(again.attempt.outputs[0].bytes == raw);
    CHECK_EQ(again.attempt.outputs[0].type, type);
  }
}

TEST(scalars_empty_tensors_and_unknown_ranks_are_served) {
  RunSlot slot;
  auto scalar = load("scalar");
  Asked one;
  one.add<float>("x", DataType::fp32, {}, {21});
  run_batch(scalar.get(), {one.bind_to(*scalar)}, &slot);
  REQUIRE(one.attempt.status.ok());
  CHECK_EQ(one.attempt.outputs[0].shape.rank, 0);
  CHECK(values_of<float>(one.attempt.outputs[0]) == std::vector<float>{42});
  auto mlp = load("mlp");
  Asked none;
  none.add<float>("x", DataType::fp32, {0, 16}, {});
  run_batch(mlp.get(), {none.bind_to(*mlp)}, &slot);
  REQUIRE(none.attempt.status.ok());
  CHECK_EQ(none.attempt.outputs[0].shape.dims[0], 0);
  CHECK_EQ(none.attempt.outputs[0].bytes.size(), 0U);
  auto unranked = load("unranked");
  Asked any;
  any.add<float>("x", DataType::fp32, {1, 2}, {1, 2});
  run_batch(unranked.get(), {any.bind_to(*unranked)}, &slot);
  REQUIRE(any.attempt.status.ok());
  CHECK(values_of<float>(any.attempt.outputs[0]) == (std::vector<float>{2, 4}));
}

TEST(an_output_that_is_an_input_does_not_point_into_the_request) {
  auto version = load("passthrough");
  RunSlot slot;
  Asked asked;
  asked.add<float>("x", DataType::fp32, {1, 2}, {1, 2});
  asked.request.outputs = {"x", "y"};
  run_batch(version.get(), {asked.bind_to(*version)}, &slot);
  REQUIRE(asked.attempt.status.ok());
  (*asked.bytes[0])[3] = 77;
  CHECK(values_of<float>(asked.attempt.outputs[0]) == (std::vector<float>{1, 2}));
}

TEST(maps_are_hidden_and_a_model_of_nothing_else_is_refused) {
  auto version = load("zipmap");
  CHECK_EQ(version->signature.outputs.size(), 1U);
  CHECK_EQ(version->signature.outputs[0].name, "label");
  CHECK(mentions(version->warnings, "output 'maps' is not a tensor"));
  RunSlot slot;
  Asked asked;
  asked.add<float>("x", DataType::fp32, {1, 2}, {0.25F, 0.75F});
  run_batch(version.get(), {asked.bind_to(*version)}, &slot);
  REQUIRE(asked.attempt.status.ok());
  CHECK(values_of<int64_t>(asked.attempt.outputs[0]) == std::vector<int64_t>{1});
  std::string why;
  load("only_maps", {}, &why);
  CHECK_EQ(why, "model 'only_maps' version 3: the model has no output that is a tensor");
  load("sequence_input", {}, &why);
  CHECK(why.find("input 's' is not a tensor of a type that can be sent") != std::string::npos);
}

TEST(a_warm_up_that_fails_turns_batching_and_loops_off_and_serves_all_the_same) {
  auto version = load("picky");
  REQUIRE(version != nullptr);
  CHECK(!version->may_batch);
  CHECK(!version->may_run_on_loop);
  CHECK(mentions(version->warnings, "the warm-up failed"));
  CHECK_EQ(version->counters.failures.load(), 0U);
  RunSlot slot;
  Asked asked;
  asked.add<int64_t>("i", DataType::int64, {1}, {1005});
  run_batch(version.get(), {asked.bind_to(*version)}, &slot);
  REQUIRE(asked.attempt.status.ok());
  CHECK(values_of<float>(asked.attempt.outputs[0]) == std::vector<float>{5});
}

TEST(a_model_from_memory_may_not_name_files) {
  std::string why;
  load("external", {}, &why);
  CHECK_EQ(why, "model 'external' version 3: its weights are in other files, which is not "
                "allowed");
}

TEST(a_provider_that_is_missing_is_an_error_or_a_fallback_that_says_so) {
  std::string why;
  load("mlp", {{"providers", "cuda"}}, &why);
  CHECK(why.find("provider 'cuda' is not available") != std::string::npos);
  CHECK(why.find("which has: ") != std::string::npos);
  CHECK(why.find("CPU") != std::string::npos);
  auto version = load("mlp", {{"providers", "cuda, cpu"}});
  CHECK(version->providers == std::vector<std::string>{"cpu"});
  CHECK(mentions(version->warnings, "provider 'cuda' is not available"));
  CHECK(mentions(version->warnings, "using cpu"));
}

TEST(an_endless_model_ends_when_it_is_terminated_and_the_slot_works_again) {
  auto version = load("endless");
  RunSlot slot;
  for (bool is_wanted : {true, false}) {
    Asked asked;
    asked.add<float>("x", DataType::fp32, {1}, {1000});
    Batch batch;
    batch.version = version.get();
    batch.attempts = {asked.bind_to(*version)};
    batch.rows = 1;
    batch.waiting = is_wanted ? 1 : 0;
    std::atomic<bool> is_over{false};
    std::thread other([&] {
      while (!is_over) {
        slot.terminate(&batch);
        std::this_thread::yield();
      }
    });
    version->run(&batch, &slot);
    is_over = true;
    other.join();
    CHECK(batch.was_terminated);
    CHECK_EQ(asked.attempt.status.situation,
             is_wanted ? Situation::model_failed : Situation::cancelled);
  }
  Asked fine;
  fine.add<float>("x", DataType::fp32, {1}, {1});
  run_batch(version.get(), {fine.bind_to(*version)}, &slot);
  CHECK(fine.attempt.status.ok());
  CHECK_EQ(version->counters.terminated.load(), 2U);
}

TEST(batching_off_and_sizes_are_obeyed) {
  CHECK(!load("mlp", {{"batching", "off"}})->may_batch);
  auto sizes = load("mean", {{"batching", "sizes"}, {"batch_sizes", "2,4"}});
  CHECK(sizes->may_batch);  // the user's word
  CHECK(sizes->batch_sizes == (std::vector<uint32_t>{2, 4}));
}

TEST(a_version_says_what_it_costs_after_its_warm_up) {
  auto version = load("medium");
  CHECK(version->predicted_ns(1) > 0);
  CHECK(version->predicted_ns(8) > 0);
  CHECK_EQ(version->counters.runs.load(), 0U);
  CHECK(!version->is_proved());
}
