// Stands in for a library too old: it has a version, and no table for what we ask.
extern "C" {

struct Base {
  void* (*get_api)(unsigned version);
  const char* (*version)();
};

__attribute__((visibility("default"))) const Base* OrtGetApiBase() {
  static const Base base{[](unsigned) -> void* { return nullptr; },
                         []() -> const char* { return "1.14.1"; }};
  return &base;
}
}
