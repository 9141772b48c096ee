// A device of its own kind whose memory is the host's: every operation is computed on the CPU, but tensors of the two
// devices do not mix, as on a GPU, and what makes the host wait for the device is told to a Python function: values and
// copies to the host, copies to the device that are not on the side, and operations whose result has a size to be found.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/alloc_cpu.h>
#include <torch/extension.h>

using namespace at;

static const Device DEVICE(kPrivateUse1, 0);

// ---- memory, streams, random numbers -------------------------------------------------------------------------------
struct Memory final : c10::Allocator {
  DataPtr allocate(size_t n) override {
    void* place = n ? c10::alloc_cpu(n) : nullptr;
    return {place, place, &c10::free_cpu, DEVICE};
  }
  DeleterFnPtr raw_deleter() const override { return &c10::free_cpu; }
  void copy_data(void* to, const void* from, std::size_t n) const override { default_copy_data(to, from, n); }
};
static Memory memory;
REGISTER_ALLOCATOR(kPrivateUse1, &memory);

struct Guard final : c10::impl::DeviceGuardImplInterface {
  DeviceType type() const override { return kPrivateUse1; }
  Device exchangeDevice(Device) const override { return DEVICE; }
  Device getDevice() const override { return DEVICE; }
  void setDevice(Device) const override {}
  void uncheckedSetDevice(Device) const noexcept override {}
  Stream getStream(Device device) const override { return Stream(Stream::DEFAULT, device); }
  Stream exchangeStream(Stream stream) const override { return stream; }
  DeviceIndex deviceCount() const noexcept override { return 1; }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

static Generator generator = make_generator<CPUGeneratorImpl>(1);
struct Hooks final : PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  const Generator& getDefaultGenerator(DeviceIndex) const override { return generator; }
  DeviceIndex deviceCount() const override { return 1; }
  DeviceIndex getCurrentDevice() const override { return 0; }
  bool isPinnedPtr(const void*) const override { return false; }
  Allocator* getPinnedMemoryAllocator() const override { return c10::GetAllocator(kCPU); }
};
static Hooks hooks;
static const bool registered = (RegisterPrivateUse1HooksInterface(&hooks), true);

// ---- what waits ----------------------------------------------------------------------------------------------------
static PyObject* listener = nullptr;
static thread_local bool computing = false;  // the copies of what is computed on the CPU are this file's own

static void tell(const std::string& what) {
  if (computing || listener == nullptr) return;
  py::gil_scoped_acquire lock;
  py::reinterpret_borrow<py::object>(listener)(what);
}

static bool is_here(const Tensor& tensor) { return tensor.defined() && tensor.device() == DEVICE; }

static Tensor on_host(const Tensor& tensor) {  // the same memory
  if (!is_here(tensor)) return tensor;
  auto* kept = tensor.storage().unsafeGetStorageImpl();
  c10::raw::intrusive_ptr::incref(kept);
  auto release = [](void* impl) { c10::raw::intrusive_ptr::decref(static_cast<StorageImpl*>(impl)); };
  DataPtr data(tensor.storage().mutable_data(), kept, release, Device(kCPU));
  auto storage = c10::make_intrusive<StorageImpl>(
      StorageImpl::use_byte_size_t(), tensor.storage().nbytes(), std::move(data), nullptr, false);
  auto found = at::detail::make_tensor<TensorImpl>(Storage(storage), DispatchKeySet(DispatchKey::CPU), tensor.dtype());
  found.unsafeGetTensorImpl()->set_sizes_and_strides(tensor.sizes(), tensor.strides(), tensor.storage_offset());
  return found;
}

// ---- operations ----------------------------------------------------------------------------------------------------
static Tensor make_empty(
    IntArrayRef size, std::optional<ScalarType> type, std::optional<Layout>, std::optional<Device>,
    std::optional<bool>, std::optional<MemoryFormat> format) {
  return at::detail::empty_generic(size, &memory, DispatchKeySet(DispatchKey::PrivateUse1), type.value_or(kFloat), format);
}

static Tensor make_strided(
    IntArrayRef size, IntArrayRef stride, std::optional<ScalarType> type, std::optional<Layout>, std::optional<Device>,
    std::optional<bool>) {
  const DispatchKeySet keys(DispatchKey::PrivateUse1);
  return at::detail::empty_strided_generic(size, stride, &memory, keys, type.value_or(kFloat));
}

static Tensor copy_across(const Tensor& from, const Tensor& to, bool non_blocking) {
  if (!is_here(to)) tell("copy to the host");
  if (!is_here(from) && !non_blocking) tell("blocking copy to the device");
  NoGradGuard guard;
  on_host(to).copy_(on_host(from));
  return to;
}

static Tensor copy_and_resize(const Tensor& from, const Tensor& to) {
  native::resize_(to, from.sizes(), std::nullopt);
  return copy_across(from, to, false);
}

static Scalar read_value(const Tensor& tensor) {
  tell("a value");
  return on_host(tensor).item();
}

static Tensor& set_storage(Tensor& tensor, Storage storage, int64_t offset, IntArrayRef sizes, IntArrayRef strides) {
  auto* impl = tensor.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(std::move(storage));
  if (sizes.size() == strides.size()) {
    impl->set_sizes_and_strides(sizes, strides, offset);
  } else {
    impl->set_sizes_contiguous(sizes);
    impl->set_storage_offset(offset);
  }
  return tensor;
}

static void compute(const c10::OperatorHandle& operation, torch::jit::Stack* stack) {
  const auto& schema = operation.schema();
  const auto begin = stack->size() - schema.arguments().size();
  for (size_t i = 0; i < schema.arguments().size(); i++) {
    const auto& name = schema.arguments()[i].name();
    auto check = [&](const Tensor& tensor) {  // on a GPU numbers, and indices, may come from the host
      if (name == "indices" && tensor.defined() && is_here(tensor) && tensor.scalar_type() == kBool) tell("a mask as index");
      TORCH_CHECK(
          !tensor.defined() || is_here(tensor) || tensor.dim() == 0 || name == "indices", schema.name(), ": ", name,
          " is on ", tensor.device(), ", others are on ", DEVICE);
    };
    const auto& argument = (*stack)[begin + i];
    if (argument.isTensor()) check(argument.toTensor());
    if (argument.isTensorList())
      for (const Tensor& tensor : argument.toTensorVector()) check(tensor);
  }
  for (const char* waits :
       {"aten::nonzero", "aten::equal", "aten::masked_select", "aten::_unique2", "aten::unique_consecutive",
        "aten::repeat_interleave", "aten::bincount"})
    if (schema.name() == waits) tell(waits);
  computing = true;
  try {
    native::cpu_fallback(operation, stack);
  } catch (...) {
    computing = false;
    throw;
  }
  computing = false;
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&compute>());
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("empty.memory_format", &make_empty);
  library.impl("empty_strided", &make_strided);
  library.impl("_copy_from", &copy_across);
  library.impl("_copy_from_and_resize", &copy_and_resize);
  library.impl("_local_scalar_dense", &read_value);
  library.impl("set_.source_Storage_storage_offset", &set_storage);
  library.impl("as_strided", native::as_strided_tensorimpl);
  library.impl("view", native::view);
  library.impl("_reshape_alias", native::_reshape_alias);
  library.impl("unfold", native::unfold);
  library.impl("alias", native::alias);
  library.impl("resize_", native::resize_);
  library.impl("set_.source_Storage", native::set_);
}

PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) {
  module.def("listen", [](py::object function) { listener = function.is_none() ? nullptr : function.release().ptr(); });
}
