// The executors, driven by scripted versions.
#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <random>
#include <set>
#include <thread>

#include "run/executor.h"
#include "run/models.h"
#include "run/slot.h"

using namespace router;

namespace {

constexpr auto kPatience = std::chrono::seconds(20);

// What a loop is to the executors: a place where batches come back.
struct Loop {
  std::mutex mutex;
  std::condition_variable arrived;
  std::vector<Batch*> back;

  static void done(Batch* batch) {
    auto* loop = static_cast<Loop*>(batch->loop);
    std::lock_guard<std::mutex> lock(loop->mutex);
    loop->back.push_back(batch);
    loop->arrived.notify_all();
  }
  bool wait_for(size_t count) {
    std::unique_lock<std::mutex> lock(mutex);
    return arrived.wait_for(lock, kPatience, [&] { return back.size() >= count; });
  }
};

// A batch of one attempt with `rows` rows of `value`.
struct Job {
  Asked asked;
  Batch batch;

  Job(Version* version, Loop* loop, float value = 1, int64_t rows = 1) {
    asked.add("x", DataType::fp32, {rows, 4},
              std::vector<float>(static_cast<size_t>(rows) * 4, value));
    batch.version = version;
    batch.attempts = {asked.bind_to(*version)};
    batch.rows = asked.attempt.binding.rows;
    batch.waiting = 1;
    batch.loop = loop;
  }
  Situation situation() const { return asked.attempt.status.situation; }
  void set_deadline(int64_t at) { batch.deadline_ns = asked.attempt.deadline_ns = at; }
};

bool until(const std::function<bool()>& claim) {
  const int64_t end = clock_ns() + std::chrono::nanoseconds(kPatience).count();
  while (!claim()) {
    if (clock_ns() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

ExecutorOptions options(uint32_t threads) {
  ExecutorOptions with;
  with.threads = threads;
  with.abandon_after_ns = 50'000'000;
  return with;
}

}  // namespace

TEST(a_batch_handed_over_comes_back_once_with_its_answer_and_its_cost) {
  auto version = load_script("echo");
  Loop loop;
  Job job(version.get(), &loop, 5);
  Executors executors(options(1), Loop::done);
  CHECK(executors.submit(&job.batch, clock_ns()));
  REQUIRE(loop.wait_for(1));
  CHECK(job.asked.attempt.status.ok());
  CHECK_EQ(values_of<float>(job.asked.attempt.outputs[0])[3], 5.0F);
  CHECK(job.batch.started_ns >= job.batch.submitted_ns);
  CHECK(job.batch.finished_ns >= job.batch.started_ns);
  CHECK(job.batch.cpu_ns > 0);
  CHECK(until([&] { return executors.running() == 0; }));
  CHECK_EQ(executors.queued(*version), 0U);
}

TEST(what_nobody_waits_for_or_is_too_late_is_returned_without_being_run) {
  auto version = load_script("fail=always");
  Loop loop;
  Job cancelled(version.get(), &loop), late(version.get(), &loop);
  cancelled.batch.waiting = 0;
  late.set_deadline(clock_ns() - 1);
  Executors executors(options(1), Loop::done);
  CHECK(executors.submit(&cancelled.batch, clock_ns()));
  CHECK(executors.submit(&late.batch, clock_ns()));
  REQUIRE(loop.wait_for(2));
  CHECK_EQ(cancelled.situation(), Situation::cancelled);
  CHECK_EQ(late.situation(), Situation::deadline);
  CHECK_EQ(version->counters.runs.load(), 0U);
}

TEST(a_run_nobody_waits_for_any_more_is_terminated) {
  auto version = load_script("hang", {{"batching", "off"}});
  Loop loop;
  Job job(version.get(), &loop);
  Executors executors(options(1), Loop::done);
  executors.submit(&job.batch, clock_ns());
  REQUIRE(until([&] { return executors.running() == 1; }));
  job.batch.waiting = 0;
  REQUIRE(loop.wait_for(1));
  CHECK_EQ(job.situation(), Situation::cancelled);
  CHECK(job.batch.was_terminated);
  CHECK_EQ(executors.counters().terminated_executor.load(), 1U);
}

TEST(a_run_past_its_deadline_is_terminated_and_the_executor_goes_on) {
  auto hanging = load_script("hang");
  auto good = load_script("tag=7");
  Loop loop;
  Job late(hanging.get(), &loop), next(good.get(), &loop);
  late.set_deadline(clock_ns() + 5'000'000);
  Executors executors(options(1), Loop::done);
  executors.submit(&late.batch, clock_ns());
  executors.submit(&next.batch, clock_ns());
  REQUIRE(loop.wait_for(2));
  CHECK_EQ(late.situation(), Situation::deadline);
  CHECK_EQ(values_of<float>(next.asked.attempt.outputs[0])[0], 7.0F);
}

TEST(an_endless_model_is_terminated_at_its_deadline) {
  auto version = load("endless");
  Loop loop;
  Asked asked;
  asked.add<float>("x", DataType::fp32, {1}, {1000});
  Batch batch;
  batch.version = version.get();
  batch.attempts = {asked.bind_to(*version)};
  batch.rows = 1;
  batch.waiting = 1;
  batch.loop = &loop;
  batch.deadline_ns = asked.attempt.deadline_ns = clock_ns() + 5'000'000;
  Executors executors(options(1), Loop::done);
  executors.submit(&batch, clock_ns());
  REQUIRE(loop.wait_for(1));
  CHECK_EQ(asked.attempt.status.situation, Situation::deadline);
}

TEST(an_executor_that_does_not_come_back_is_abandoned_and_replaced) {
  // What the stuck thread may still touch is never freed, as in a server.
  static auto* stuck = load_script("hang_forever", {{"concurrency", "1"}}).release();
  auto good = load_script("tag=7");
  static auto* loop = new Loop;
  static auto* lost = new Job(stuck, loop);
  Job behind(stuck, loop), next(good.get(), loop);
  {
    Executors executors(options(1), Loop::done);
    executors.submit(&lost->batch, clock_ns());
    REQUIRE(until([&] { return executors.running() == 1; }));
    behind.set_deadline(clock_ns() + 30'000'000);
    executors.submit(&behind.batch, clock_ns());
    executors.submit(&next.batch, clock_ns());
    lost->batch.waiting = 0;
    REQUIRE(loop->wait_for(2));
    CHECK_EQ(executors.counters().abandoned.load(), 1U);
    CHECK_EQ(behind.situation(), Situation::deadline);
    CHECK_EQ(values_of<float>(next.asked.attempt.outputs[0])[0], 7.0F);
    CHECK(executors.predicted_wait_ns(*stuck) > 1'000'000'000'000);
    CHECK(executors.predicted_wait_ns(*good) < 1'000'000'000'000);
  }
  CHECK_EQ(loop->back.size(), 2U);  // shutdown did not wait for it
}

TEST(batches_that_wait_run_together_and_go_back_to_their_own_loops) {
  auto version = load_script("echo", {{"max_queue_delay_us", "10000000"},
                                      {"batch_rows_max", "6"}});
  CHECK(!version->may_run_on_loop);
  Loop left, right;
  Job one(version.get(), &left, 1, 1), two(version.get(), &right, 2, 2),
      three(version.get(), &left, 3, 3);
  {
    Executors executors(options(2), Loop::done);
    for (Job* job : {&one, &two, &three}) executors.submit(&job->batch, clock_ns());
    REQUIRE(left.wait_for(2) && right.wait_for(1));
  }
  CHECK_EQ(version->counters.runs.load(), 1U);
  CHECK_EQ(version->counters.rows.load(), 6U);
  CHECK_EQ(values_of<float>(two.asked.attempt.outputs[0])[7], 2.0F);
}

TEST(a_result_shared_by_two_loops_lives_until_both_are_done_with_it) {
  auto version = load("mlp", {{"max_queue_delay_us", "10000000"}, {"batch_rows_max", "2"}});
  Loop left, right;
  std::vector<float> x(16, 0.5F);
  Asked one, two;
  Batch batches[2];
  one.add("x", DataType::fp32, {1, 16}, x);
  two.add("x", DataType::fp32, {1, 16}, x);
  for (int i = 0; i < 2; ++i) {
    batches[i].version = version.get();
    batches[i].attempts = {(i == 0 ? one : two).bind_to(*version)};
    batches[i].rows = batches[i].waiting = 1;
    batches[i].loop = i == 0 ? &left : &right;
  }
  Executors executors(options(1), Loop::done);
  executors.submit(&batches[0], clock_ns());
  executors.submit(&batches[1], clock_ns());
  // Each loop on a thread of its own, as the thread sanitizer wants to see them.
  std::vector<float> seen[2];
  auto consume = [&](Loop* loop, Asked* asked, std::vector<float>* out) {
    if (!loop->wait_for(1)) return;
    *out = values_of<float>(asked->attempt.outputs[0]);
    asked->attempt.result = ResultRef();
  };
  std::thread first(consume, &left, &one, &seen[0]), second(consume, &right, &two, &seen[1]);
  first.join();
  second.join();
  CHECK_EQ(version->counters.runs.load(), 1U);
  REQUIRE(seen[0].size() == 2);
  CHECK(seen[0] == seen[1]);
}

TEST(variants_of_one_version_queue_and_batch_apart) {
  auto version = load_script("echo");
  auto hanging = load_script("hang", {{"batching", "off"}});
  Loop loop;
  Job blocking(hanging.get(), &loop);
  std::vector<std::unique_ptr<Job>> jobs;
  Executors executors(options(1), Loop::done);
  executors.submit(&blocking.batch, clock_ns());
  REQUIRE(until([&] { return executors.running() == 1; }));
  for (uint32_t i = 0; i < 4; ++i) {
    jobs.push_back(std::make_unique<Job>(version.get(), &loop));
    jobs[i]->batch.lane = i % 2;
    executors.submit(&jobs[i]->batch, clock_ns());
  }
  CHECK_EQ(executors.queued(*version), 4U);
  blocking.batch.waiting = 0;
  REQUIRE(loop.wait_for(5));
  CHECK_EQ(version->counters.runs.load(), 2U);  // one for each lane
  CHECK_EQ(jobs[0]->batch.started_ns, jobs[2]->batch.started_ns);
  CHECK_EQ(jobs[1]->batch.started_ns, jobs[3]->batch.started_ns);
  CHECK(jobs[0]->batch.started_ns != jobs[1]->batch.started_ns);
}

TEST(no_more_runs_of_a_version_at_once_than_it_allows) {
  auto version = load_script("hang", {{"concurrency", "1"}, {"batching", "off"}});
  auto other = load_script("echo");
  Loop loop;
  Job first(version.get(), &loop), second(version.get(), &loop), third(other.get(), &loop);
  Executors executors(options(2), Loop::done);
  for (Job* job : {&first, &second, &third}) executors.submit(&job->batch, clock_ns());
  REQUIRE(loop.wait_for(1));  // only the other version's can have run
  CHECK(loop.back[0] == &third.batch);
  CHECK_EQ(executors.queued(*version), 1U);
  first.batch.waiting = second.batch.waiting = 0;
  CHECK(loop.wait_for(3));
}

TEST(a_full_queue_refuses_and_counts_and_the_wait_is_foretold) {
  auto version = load_script("hang", {{"concurrency", "1"}, {"batching", "off"}});
  version->observe(1, 80'000'000);
  Loop loop;
  ExecutorOptions with = options(1);
  with.queued_max = 2;
  Executors executors(with, Loop::done);
  Job running(version.get(), &loop), one(version.get(), &loop), two(version.get(), &loop),
      three(version.get(), &loop);
  CHECK_EQ(executors.predicted_wait_ns(*version), 0);
  executors.submit(&running.batch, clock_ns());
  REQUIRE(until([&] { return executors.running() == 1; }));
  CHECK(executors.submit(&one.batch, clock_ns()));
  CHECK(executors.submit(&two.batch, clock_ns()));
  CHECK(!executors.submit(&three.batch, clock_ns()));
  CHECK_EQ(executors.counters().refused.load(), 1U);
  const int64_t each = version->predicted_ns(1);
  CHECK_EQ(executors.predicted_wait_ns(*version), 2 * each + each / 2);
  for (Job* job : {&running, &one, &two}) job->batch.waiting = 0;
  CHECK(loop.wait_for(3));
}

TEST(stopping_returns_what_was_queued_and_terminates_what_runs) {
  auto version = load_script("hang", {{"concurrency", "1"}, {"batching", "off"}});
  Loop loop;
  Job running(version.get(), &loop), queued(version.get(), &loop);
  {
    Executors executors(options(1), Loop::done);
    executors.submit(&running.batch, clock_ns());
    executors.submit(&queued.batch, clock_ns());
    REQUIRE(until([&] { return executors.running() == 1; }));
  }
  CHECK_EQ(loop.back.size(), 2U);
  CHECK_EQ(queued.situation(), Situation::draining);
  CHECK_EQ(running.situation(), Situation::model_failed);
}

TEST(a_run_that_holds_its_loop_is_terminated_by_the_watchdog) {
  auto endless = load("endless");
  auto hanging = load_script("hang");
  Executors executors(options(1), Loop::done);
  RunSlot slot;
  executors.add_loop_slot(&slot);
  Asked asked;
  asked.add<float>("x", DataType::fp32, {1}, {1000});
  Batch busy;
  busy.version = endless.get();
  busy.attempts = {asked.bind_to(*endless)};
  busy.rows = busy.waiting = 1;
  Job idle(hanging.get(), nullptr);
  for (Batch* batch : {&busy, &idle.batch}) {  // one burns its core, one sleeps
    executors.watch_begin(&slot, batch, clock_ns());
    batch->version->run(batch, &slot);
    executors.watch_end(&slot);
    CHECK(batch->was_terminated);
    CHECK_EQ(batch->attempts[0]->status.situation, Situation::model_failed);
  }
  CHECK_EQ(executors.counters().terminated_loop.load(), 2U);
  executors.remove_loop_slot(&slot);
}

TEST(scripts_do_what_they_say) {
  Loop loop;
  RunSlot slot;
  auto run = [&](Version* version) {
    Job job(version, &loop, 3);
    version->run(&job.batch, &slot);
    return std::make_pair(job.situation(), job.situation() == Situation::ok
                                               ? values_of<float>(job.asked.attempt.outputs[0])
                                               : std::vector<float>());
  };
  CHECK(std::isnan(run(load_script("nan").get()).second[0]));
  CHECK_EQ(run(load_script("wrong_shape").get()).second.size(), 5U);
  auto every = load_script("fail=every:2");
  auto after = load_script("fail_after=1");
  CHECK_EQ(run(every.get()).first, Situation::ok);
  CHECK_EQ(run(every.get()).first, Situation::model_failed);
  CHECK_EQ(run(every.get()).first, Situation::ok);
  CHECK_EQ(run(after.get()).first, Situation::ok);
  CHECK_EQ(run(after.get()).first, Situation::model_failed);
  auto slow = load_script("delay_us=300");
  run(slow.get());
  CHECK(slow->counters.run_ns.load() >= 300'000);
}

TEST(every_batch_comes_back_once_whatever_is_cancelled_or_late) {
  std::mt19937 random(20240607);
  std::unique_ptr<Version> versions[] = {
      load_script("delay_us=50"), load_script("fail=every:3;delay_us=20"),
      load_script("hang", {{"batching", "off"}}), load("mlp"),
      load_script("echo", {{"max_queue_delay_us", "300"}, {"batch_rows_max", "4"}})};
  Loop loops[2];
  std::vector<std::unique_ptr<Job>> jobs;
  size_t submitted[2] = {0, 0};
  {
    Executors executors(options(2), Loop::done);
    for (int i = 0; i < 400; ++i) {
      const auto kind = static_cast<size_t>(random() % 10 == 0 ? 2 : random() % 5);
      Version* version = versions[kind].get();
      const auto at = static_cast<size_t>(random() % 2);
      auto job = std::make_unique<Job>(version, &loops[at], static_cast<float>(i),
                                       static_cast<int64_t>(random() % 3 + 1));
      if (!job->asked.bound.ok()) {  // the MLP wants 16 columns
        job->asked.request.inputs[0].shape = Shape{2, {1, 16}};
        job->asked.bytes[0]->resize(64);
        job->asked.request.inputs[0].bytes = *job->asked.bytes[0];
        job->asked.request.inputs[0].elements = 16;
        job->batch.attempts = {job->asked.bind_to(*version)};
        job->batch.rows = 1;
      }
      const int64_t now = clock_ns();
      if (kind == 2 || random() % 4 == 0) job->set_deadline(now + static_cast<int64_t>(random() % 2'000'000));
      submitted[at] += executors.submit(&job->batch, now) ? 1 : 0;
      jobs.push_back(std::move(job));
      if (random() % 3 == 0) jobs[random() % jobs.size()]->batch.waiting = 0;
    }
    CHECK(loops[0].wait_for(submitted[0]));
    CHECK(loops[1].wait_for(submitted[1]));
  }
  for (int at = 0; at < 2; ++at) {
    const std::set<Batch*> distinct(loops[at].back.begin(), loops[at].back.end());
    CHECK_EQ(loops[at].back.size(), submitted[at]);
    CHECK_EQ(distinct.size(), submitted[at]);
  }
  for (const auto& job : jobs) {
    if (!job->asked.attempt.status.ok()) continue;
    const auto values = values_of<float>(job->asked.attempt.outputs[0]);
    if (job->batch.version->platform == "scripted") {
      CHECK(values == values_of<float>(job->asked.request.inputs[0]));
    }
  }
}
