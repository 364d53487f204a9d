// Binding, averages, batches: values in, values out; no runtime.
#include "run/models.h"

using namespace router;

namespace {

Signature signature_of_two() {
  Signature signature;
  TensorSpec spec;
  spec.shape.rank = 2;
  spec.shape.dims = {-1, 4};
  spec.name = "a";
  spec.type = DataType::fp32;
  signature.inputs.push_back(spec);
  spec.name = "b";
  spec.type = DataType::int64;
  signature.inputs.push_back(spec);
  spec.name = "y";
  signature.outputs.push_back(spec);
  spec.name = "z";
  signature.outputs.push_back(spec);
  signature.may_batch = true;
  return signature;
}

struct Case {
  const char* message;
  void (*ask)(Asked* asked);
};

void add_a(Asked* asked, int64_t rows = 1) {
  asked->add<float>("a", DataType::fp32, {rows, 4}, std::vector<float>(size_t(rows) * 4));
}
void add_b(Asked* asked, int64_t rows = 1) {
  asked->add<int64_t>("b", DataType::int64, {rows, 4}, std::vector<int64_t>(size_t(rows) * 4));
}

class Idle final : public Version {
 public:
  void run(Batch*, RunSlot*) override {}
};

uint64_t rows_of(Asked* asked) {
  Binding binding;
  CHECK(bind(signature_of_two(), "m", asked->request, &binding).ok());
  return binding.rows;
}

}  // namespace

TEST(a_request_that_does_not_fit_is_told_why) {
  const Case cases[] = {
      {"unexpected inference input 'x' for model 'm'",
       [](Asked* a) { add_a(a), a->add<float>("x", DataType::fp32, {1}, {0}); }},
      {"inference input 'b' data-type is 'FP32', but model 'm' expects 'INT64'",
       [](Asked* a) {
         add_a(a), a->add<float>("b", DataType::fp32, {1, 4}, {0, 0, 0, 0});
       }},
      {"unexpected shape for input 'a' for model 'm'. Expected [-1,4], got [1,5]",
       [](Asked* a) { a->add<float>("a", DataType::fp32, {1, 5}, {0, 0, 0, 0, 0}); }},
      {"unexpected shape for input 'a' for model 'm'. Expected [-1,4], got [4]",
       [](Asked* a) { a->add<float>("a", DataType::fp32, {4}, {0, 0, 0, 0}); }},
      {"expected 2 inputs but got 1 inputs for model 'm'. Got input(s) ['a'], but missing "
       "required input(s) ['b']",
       [](Asked* a) { add_a(a); }},
      {"unexpected inference output 'w' for model 'm'",
       [](Asked* a) { add_a(a), add_b(a), a->request.outputs.push_back("w"); }},
  };
  for (const Case& one : cases) {
    Asked asked;
    one.ask(&asked);
    Binding binding;
    const Status status = bind(signature_of_two(), "m", asked.request, &binding);
    CHECK_EQ(status.message, one.message);
    CHECK_EQ(status.situation, Situation::bad_input);
  }
}

TEST(inputs_in_another_order_are_mapped_and_outputs_come_in_the_requests_order) {
  Asked asked;
  add_b(&asked);
  add_a(&asked);
  asked.request.outputs = {"z", "y"};
  Binding binding;
  CHECK(bind(signature_of_two(), "m", asked.request, &binding).ok());
  CHECK(binding.input_at == (std::vector<uint8_t>{1, 0}));
  CHECK(binding.outputs == (std::vector<uint8_t>{1, 0}));
}

TEST(rows_are_the_common_first_dimension_or_none) {
  Asked same, different, none;
  add_a(&same, 3), add_b(&same, 3);
  add_a(&different, 3), add_b(&different, 1);
  add_a(&none, 0), add_b(&none, 0);
  CHECK_EQ(rows_of(&same), 3U);
  CHECK_EQ(rows_of(&different), 0U);
  CHECK_EQ(rows_of(&none), 0U);
}

TEST(an_unseen_number_of_rows_is_predicted_from_the_nearest_seen) {
  Idle version;
  CHECK_EQ(version.predicted_ns(1), 0);
  version.observe(4, 1000);
  CHECK_EQ(version.predicted_ns(5), 1000);
  CHECK_EQ(version.predicted_ns(16), 4000);
  CHECK_EQ(version.predicted_ns(1), 1000);
}

TEST(a_version_is_proved_by_a_thousand_runs_and_anew_by_twice_as_many_after_an_overrun) {
  Idle version;
  version.may_run_on_loop = true;
  version.observe(1, 200'000);
  version.counters.runs = Version::kProofRuns - 1;
  CHECK(!version.is_proved());
  version.counters.runs = Version::kProofRuns;
  CHECK(version.is_proved());
  version.observe(1, 1'900'000);  // over a millisecond, not ten times the average
  CHECK(version.is_proved());
  version.observe(1, 50'000'000);
  CHECK(!version.is_proved());
  version.observe(1, 200'000);
  CHECK(!version.is_proved());
  version.counters.runs = 3 * Version::kProofRuns - 1;
  CHECK(!version.is_proved());
  version.counters.runs = 3 * Version::kProofRuns;
  CHECK(version.is_proved());
}

TEST(batches_take_in_order_what_may_join_and_leave_the_rest_pending) {
  const Signature signature = signature_of_two();
  Idle version;
  version.may_batch = true;
  version.rows_max = 5;
  std::vector<std::unique_ptr<Asked>> asked;
  std::vector<Attempt*> pending, chosen;
  for (int64_t rows : {2, 0, 4, 1, 2}) {
    asked.push_back(std::make_unique<Asked>());
    add_a(asked.back().get(), rows), add_b(asked.back().get(), rows);
    Attempt& attempt = asked.back()->attempt;
    attempt.request = &asked.back()->request;
    CHECK(bind(signature, "m", asked.back()->request, &attempt.binding).ok());
    pending.push_back(&attempt);
  }
  auto at = [&](size_t i) { return &asked[i]->attempt; };
  CHECK_EQ(form_batch(version, &pending, &chosen), 5U);
  CHECK(chosen == (std::vector<Attempt*>{at(0), at(3), at(4)}));
  CHECK_EQ(form_batch(version, &pending, &chosen), 0U);  // no rows: alone
  CHECK(chosen == std::vector<Attempt*>{at(1)});
  CHECK_EQ(form_batch(version, &pending, &chosen), 4U);
  CHECK(pending.empty());
  CHECK_EQ(form_batch(version, &pending, &chosen), 0U);
  CHECK(chosen.empty());
}

TEST(batches_of_given_sizes_stack_only_up_to_an_exact_size) {
  const Signature signature = signature_of_two();
  Idle version;
  version.may_batch = true;
  version.batch_sizes = {4, 2};
  std::vector<std::unique_ptr<Asked>> asked;
  std::vector<Attempt*> pending, chosen;
  for (int i = 0; i < 7; ++i) {
    asked.push_back(std::make_unique<Asked>());
    add_a(asked.back().get()), add_b(asked.back().get());
    Attempt& attempt = asked.back()->attempt;
    attempt.request = &asked.back()->request;
    CHECK(bind(signature, "m", asked.back()->request, &attempt.binding).ok());
    pending.push_back(&attempt);
  }
  std::vector<uint64_t> sizes;
  while (!pending.empty()) sizes.push_back(form_batch(version, &pending, &chosen));
  CHECK(sizes == (std::vector<uint64_t>{4, 2, 1}));
}

TEST(a_version_whose_rows_were_seen_to_mix_is_not_batched_any_more) {
  const Signature signature = signature_of_two();
  Idle version;
  version.may_batch = true;
  version.has_mixed_rows = true;
  Asked one, two;
  std::vector<Attempt*> pending, chosen;
  for (Asked* asked : {&one, &two}) {
    add_a(asked), add_b(asked);
    asked->attempt.request = &asked->request;
    CHECK(bind(signature, "m", asked->request, &asked->attempt.binding).ok());
    pending.push_back(&asked->attempt);
  }
  CHECK_EQ(form_batch(version, &pending, &chosen), 1U);
  CHECK_EQ(pending.size(), 1U);
}

TEST(options_that_mean_nothing_are_refused_by_name) {
  std::string why;
  load("mlp", {{"kind", "bogus"}}, &why);
  CHECK(why.find("kind 'bogus' is unknown") != std::string::npos);
  load("mlp", {{"batching", "sometimes"}}, &why);
  CHECK(why.find("batching is 'sometimes'") != std::string::npos);
  load("mlp", {{"batching", "sizes"}}, &why);
  CHECK(why.find("batch_sizes is empty") != std::string::npos);
  load("mlp", {{"intra_op_threads", "many"}}, &why);
  CHECK(why.find("intra_op_threads is 'many'") != std::string::npos);
  load("mlp", {{"concurrency", "0"}}, &why);
  CHECK(why.find("concurrency must be at least 1") != std::string::npos);
  load("mlp", {{"kind", "scripted"}, {"script", "dance"}}, &why);
  CHECK(why.find("script item 'dance' is unknown") != std::string::npos);
}
