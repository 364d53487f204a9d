// What a native test needs: named tests, checks that say what they saw, a main.
//
//   TEST(a_scalar_has_one_element) { CHECK_EQ(count, 1u); }
//   int main(int argc, char** argv) { return router::check::run_all(argc, argv); }
//
// Tests run in the order they are written; an argument runs those whose name contains it.
// A failed check is printed and counted, and the test goes on: one run shows everything.
// REQUIRE leaves the test instead, for what the following lines depend on.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <sstream>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace router::check {

struct Test {
  const char* name;
  void (*body)();
};

// The only state: which tests there are and how many checks failed so far.
inline std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}
inline unsigned& failures() {
  static unsigned count = 0;
  return count;
}
struct Registration {
  Registration(const char* name, void (*body)()) { tests().push_back({name, body}); }
};

inline void report(const char* file, int line, const std::string& what) {
  ++failures();
  std::fprintf(stderr, "%s:%d: %s\n", file, line, what.c_str());
}

template <typename T>
std::string shown(const T& value) {
  std::ostringstream text;
  if constexpr (std::is_enum_v<T>) {
    text << static_cast<int64_t>(value);
  } else if constexpr (std::is_same_v<T, uint8_t> || std::is_same_v<T, int8_t>) {
    text << static_cast<int>(value);
  } else if constexpr (std::is_convertible_v<const T&, std::string_view>) {
    text << '"' << std::string_view(value) << '"';
  } else {
    text << value;
  }
  return text.str();
}

template <typename A, typename B>
bool are_equal(const A& a, const B& b) {
  if constexpr (std::is_convertible_v<const A&, std::string_view> &&
                std::is_convertible_v<const B&, std::string_view>) {
    return std::string_view(a) == std::string_view(b);
  } else {
    return a == b;
  }
}

template <typename A, typename B>
bool check_equal(const char* file, int line, const char* what, const A& a, const B& b) {
  if (are_equal(a, b)) return true;
  report(file, line, std::string(what) + ": " + shown(a) + " is not " + shown(b));
  return false;
}

inline int run_all(int argc, char** argv) {
  unsigned ran = 0, failed = 0;
  for (const Test& test : tests()) {
    if (argc > 1 && std::strstr(test.name, argv[1]) == nullptr) continue;
    unsigned before = failures();
    test.body();
    ++ran;
    if (failures() != before) {
      ++failed;
      std::fprintf(stderr, "FAILED %s\n", test.name);
    }
  }
  std::printf("%u tests, %u failed\n", ran, failed);
  return failed == 0 && ran != 0 ? 0 : 1;
}

}  // namespace router::check

#define TEST(name)                                                                 \
  static void test_##name();                                                       \
  static const router::check::Registration registration_##name(#name, test_##name); \
  static void test_##name()
#define CHECK(claim)                                                               \
  ((claim) ? (void)0                                                               \
           : router::check::report(__FILE__, __LINE__, #claim " does not hold"))
#define CHECK_EQ(a, b) \
  (void)router::check::check_equal(__FILE__, __LINE__, #a " == " #b, a, b)
#define REQUIRE(claim)                                                      \
  do {                                                                      \
    if (!(claim)) {                                                         \
      router::check::report(__FILE__, __LINE__, #claim " does not hold");   \
      return;                                                               \
    }                                                                       \
  } while (false)
