/* wires.h — Gloo's connections, buffers and devices with one thing more: another thread can
 * end every wait on them (C++; a part of gloo.cc). Gloo's own stands behind each. */
#ifndef AM_WIRES_H
#define AM_WIRES_H

#include <gloo/common/error.h>
#include <gloo/transport/context.h>
#include <gloo/transport/device.h>
#include <gloo/transport/tcp/device.h>
#include <gloo/transport/unbound_buffer.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace
{

constexpr std::chrono::milliseconds forever = std::chrono::hours(24 * 365);

class Buffer;

class Wires : public gloo::transport::Context
{
  public:
    explicit Wires(const std::shared_ptr<gloo::transport::Context> &own)
        : gloo::transport::Context(own->rank, own->size), own_(own)
    {
    }
    std::unique_ptr<gloo::transport::Pair> &getPair(int r) override
    {
        check();
        return own_->getPair(r);
    }
    std::unique_ptr<gloo::transport::Pair> &createPair(int r) override
    {
        std::lock_guard<std::mutex> guard(lock_);
        check();
        return own_->createPair(r);
    }
    std::unique_ptr<gloo::transport::UnboundBuffer> createUnboundBuffer(void *data,
                                                                        size_t bytes) override;
    void cut();
    void check() const
    {
        if (broken_)
            throw gloo::IoException("given up");
    }

  private:
    friend class Buffer;
    const std::shared_ptr<gloo::transport::Context> own_;
    std::atomic<bool> broken_{false};
    std::mutex lock_;
    std::set<Buffer *> buffers_;
};

class Buffer : public gloo::transport::UnboundBuffer
{
  public:
    Buffer(Wires &wires, void *data, size_t bytes)
        : gloo::transport::UnboundBuffer(data, bytes), wires_(wires),
          own_(wires.own_->createUnboundBuffer(data, bytes))
    {
        std::lock_guard<std::mutex> guard(wires_.lock_);
        wires_.buffers_.insert(this);
    }
    ~Buffer() override
    {
        std::lock_guard<std::mutex> guard(wires_.lock_);
        wires_.buffers_.erase(this);
    }
    bool waitRecv(int *rank, std::chrono::milliseconds) override
    {
        wires_.check();
        return own_->waitRecv(rank, forever) || end();
    }
    bool waitSend(int *rank, std::chrono::milliseconds) override
    {
        wires_.check();
        return own_->waitSend(rank, forever) || end();
    }
    void abortWaitRecv() override
    {
        own_->abortWaitRecv();
    }
    void abortWaitSend() override
    {
        own_->abortWaitSend();
    }
    void send(int rank, uint64_t slot, size_t offset, size_t bytes) override
    {
        own_->send(rank, slot, offset, bytes);
    }
    void recv(int rank, uint64_t slot, size_t offset, size_t bytes) override
    {
        own_->recv(rank, slot, offset, bytes);
    }
    void recv(std::vector<int> ranks, uint64_t slot, size_t offset, size_t bytes) override
    {
        own_->recv(std::move(ranks), slot, offset, bytes);
    }

  private:
    static bool end()
    {
        throw gloo::IoException("given up");
    }
    Wires &wires_;
    const std::unique_ptr<gloo::transport::UnboundBuffer> own_;
};

std::unique_ptr<gloo::transport::UnboundBuffer> Wires::createUnboundBuffer(void *data, size_t bytes)
{
    return std::unique_ptr<gloo::transport::UnboundBuffer>(new Buffer(*this, data, bytes));
}

/* Ends all waits, now and later. */
void Wires::cut()
{
    std::lock_guard<std::mutex> guard(lock_);
    broken_ = true;
    for (Buffer *buffer : buffers_) {
        buffer->abortWaitRecv();
        buffer->abortWaitSend();
    }
    for (int r = 0; r < size; r++)
        if (r != rank && own_->getPair(r))
            own_->getPair(r)->close();
}

/* A device a group, which remembers the group's connections. */
class Line : public gloo::transport::Device
{
  public:
    explicit Line(const gloo::transport::tcp::attr &attr)
        : own_(gloo::transport::tcp::CreateDevice(attr))
    {
    }
    std::string str() const override
    {
        return own_->str();
    }
    const std::string &getPCIBusID() const override
    {
        return own_->getPCIBusID();
    }
    std::shared_ptr<gloo::transport::Context> createContext(int rank, int size) override
    {
        auto own = own_->createContext(rank, size);
        own->setTimeout(forever);
        auto wires = std::make_shared<Wires>(own);
        std::lock_guard<std::mutex> guard(lock_);
        if (broken_)
            throw gloo::IoException("given up");
        wires_ = wires;
        return wires;
    }
    void break_off()
    {
        std::shared_ptr<Wires> wires;
        {
            std::lock_guard<std::mutex> guard(lock_);
            broken_ = true;
            wires = wires_.lock();
        }
        if (wires)
            wires->cut();
    }
    bool broken() const
    {
        return broken_;
    }

  private:
    const std::shared_ptr<gloo::transport::Device> own_;
    std::atomic<bool> broken_{false};
    std::mutex lock_;
    std::weak_ptr<Wires> wires_; // the context has it
};

} // namespace

#endif
